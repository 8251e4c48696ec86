"""verl's own trainer, started by the project's launch script with the overrides of a tiny model on a CPU."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from verl_launch import SCRIPT

from verl_cpu.quick_sampler import RECORDS

HELPERS = Path(__file__).parents[1]
ROOT = HELPERS.parents[1]
MODULES = "verl_cpu.cpu_platform,verl_cpu.cpu_patches,verl_cpu.generate_rollout"
SECONDS = 900  # verl waits for ever where a worker has died
G, BATCH = 4, 4
_FP32 = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"
_OVERRIDES = f"""
trainer.device=cpu trainer.logger=[file] trainer.val_before_train=false trainer.test_freq=-1 trainer.total_epochs=100
ray_kwargs.ray_init.num_cpus=16 +ray_kwargs.ray_init.include_dashboard=false +ray_kwargs.ray_init.object_store_memory=200000000
transfer_queue.backend.SimpleStorage.num_data_storage_units=1 reward.num_workers=1
trainer.v1.sampler.custom_sampler.path=pkg://verl_cpu.quick_sampler trainer.v1.sampler.custom_sampler.name=QuickReplayBuffer
data.train_batch_size={BATCH} data.max_prompt_length=64 data.max_response_length=24 data.dataloader_num_workers=0
data.filter_overlong_prompts_workers=1
+actor_rollout_ref.model.override_config.attn_implementation=sdpa actor_rollout_ref.model.use_remove_padding=false
actor_rollout_ref.model.enable_gradient_checkpointing=false
actor_rollout_ref.actor.fsdp_config.dtype=float32 actor_rollout_ref.actor.fsdp_config.use_torch_compile=false
actor_rollout_ref.ref.fsdp_config.dtype=float32 actor_rollout_ref.ref.fsdp_config.use_torch_compile=false
+actor_rollout_ref.actor.fsdp_config.mixed_precision={_FP32} +actor_rollout_ref.ref.fsdp_config.mixed_precision={_FP32}
actor_rollout_ref.actor.optim.lr=1e-3 actor_rollout_ref.actor.optim.lr_warmup_steps=0
actor_rollout_ref.actor.optim.weight_decay=0
actor_rollout_ref.actor.checkpoint.save_contents=[model,hf_model]
actor_rollout_ref.rollout.name=generate actor_rollout_ref.rollout.n={G} actor_rollout_ref.rollout.val_kwargs.n={G}
actor_rollout_ref.rollout.free_cache_engine=false actor_rollout_ref.rollout.agent.num_workers=1
""".split()
_RAY = {  # on a busy machine: start few processes, at the normal priority
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class Steps:
    """What whole steps leave behind: verl's log and the sampler's record, one a step, and the weights before and after."""

    logged: list[dict[str, Any]]
    records: list[dict[str, Any]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    def moved(self) -> dict[str, bool]:
        return {name: bool((self.after[name] != weight).any()) for name, weight in self.before.items()}


def run_steps(
    world: Path, out: Path, constructor: str, *overrides: str, steps: int, ranks: int = 1, beam: bool = False
) -> Steps:
    """Train for `steps` steps and return what is left. Raises AssertionError with verl's last words where it failed."""
    length = (f"trainer.total_training_steps={steps}", f"trainer.save_freq={steps}", f"+ray_kwargs.ray_init.num_gpus={ranks}")
    command = ["bash", str(SCRIPT), *_OVERRIDES, *length, f"trainer.default_local_dir={out}/saved", *overrides]
    own = {
        "BEAM": str(int(beam)),
        "CONSTRUCTOR": constructor,
        "DATA": str(world / "data"),
        "GPUS": str(ranks),
        "HF_HUB_OFFLINE": "1",
        "HYDRA_FULL_ERROR": "1",
        "MODEL": str(world / "model"),
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
        "PYTHONPATH": f"{ROOT}:{HELPERS}",
        RECORDS: str(out),
        **_RAY,
        "VERL_ENGINE_DEVICE": "cuda",
        "VERL_FILE_LOGGER_PATH": str(out / "log.jsonl"),
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": MODULES,
    }
    said = out / "said.txt"
    with said.open("w") as file:
        started = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=file, stderr=subprocess.STDOUT, cwd=out, start_new_session=True
        )
        try:
            failed = started.wait(SECONDS)
        except subprocess.TimeoutExpired:
            failed = f"no end after {SECONDS} s"
        finally:
            _end(started)
    assert not failed, f"{failed}\n{said.read_text()[-6000:]}"
    saved = out / f"saved/global_step_{steps}/actor/huggingface/model.safetensors"
    logged = [json.loads(line)["data"] for line in (out / "log.jsonl").read_text().splitlines()]
    records = [torch.load(out / f"{step}.pt", weights_only=False) for step in range(1, steps + 1)]
    return Steps(logged, records, load_file(world / "model/model.safetensors"), load_file(saved))


def _end(started: subprocess.Popen[bytes]) -> None:
    """The launch and what Ray has started, all in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    started.wait()
