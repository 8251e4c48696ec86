"""A tiny Qwen3 on disk, a data set of prompts with targets, and scripted rollouts, for the tests of the TRL adapter.

As a script: `trl_world.py FOLDER CHECK` under torchrun, every rank leaves `CHECK-RANK.json` in the folder.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # rollout_func is announced as experimental

import numpy as np
import torch
from datasets import Dataset
from text_world import text_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from recast_sim.catalog import Catalog, synthetic_codes
from recast_train.adapters.trl import RecastGRPOTrainer, SidScores, SidTokens, constrained_rollout

SIZES, G = (3, 3, 3), 4
CODES = synthetic_codes(14, SIZES, np.random.default_rng(0))
NAMES = tuple(f"<s_{level}_{code}>" for level, size in zip("abc", SIZES, strict=True) for code in range(size))
FIRST = 14  # token of the first name
SIDS = SidTokens(Catalog.from_codes(CODES, SIZES), (FIRST, FIRST + 3, FIRST + 6))
SCORES = SidScores(SIDS.parse)
PROMPTS = (
    "user liked the items",
    "say the next",
    "items , please ?",
    "the user : say",
    "next",
    "liked items the user say next ?",
)


def write_checkpoint(folder: Path) -> Path:
    return text_checkpoint(folder / "model", names=NAMES)


def examples(prompts: int = 4) -> Dataset:
    """Each prompt's own target SID, as a column of targets and as an anchor of token ids."""
    targets = [CODES[row].tolist() for row in range(prompts)]
    rows = {"prompt": list(PROMPTS[:prompts]), "targets": [[sid] for sid in targets]}
    return Dataset.from_dict({**rows, "anchor": [SIDS.encode(sid) for sid in targets]})


Script = Callable[[int, int], list[int]]  # completion of a prompt's rollout


def misses(prompt: int, g: int) -> list[int]:
    """SIDs of the catalog, all of them wrong for every prompt here."""
    return SIDS.encode(CODES[6 + (3 * prompt + g) % 8])


def one_hit(prompt: int, g: int) -> list[int]:
    """The target from rollout 1 of odd prompts, misses elsewhere."""
    return SIDS.encode(CODES[prompt]) if prompt % 2 and g == 1 else misses(prompt, g)


def uneven(prompt: int, g: int) -> list[int]:
    """`one_hit` with words before the SID, so that completions differ in length."""
    return [3 + g] * ((prompt + g) % 3) + one_hit(prompt, g)


def scripted(script: Script, logprobs: bool = False) -> Callable[[list[str], Any], dict[str, Any]]:
    """A rollout_func that gives each prompt's rollouts by `script`."""

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        seen: Counter[str] = Counter()
        rows = [(PROMPTS.index(prompt), seen.update([prompt]) or seen[prompt] - 1) for prompt in prompts]
        completions = [script(*row) for row in rows]
        given = [[-0.5 - 0.1 * g] * len(ids) for ids, (_, g) in zip(completions, rows, strict=True)]
        prompt_ids = trainer.processing_class(text=prompts)["input_ids"]
        return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": given if logprobs else None}

    return rollout


def config(folder: Path, **options: Any) -> GRPOConfig:
    return GRPOConfig(
        **{
            "output_dir": str(folder / "run"),
            "use_cpu": True,
            "bf16": False,
            "per_device_train_batch_size": 4 * G,
            "num_generations": G,
            "max_completion_length": 8,
            "max_steps": 1,
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "shuffle_dataset": False,
            **options,
        }
    )


def trainer(folder: Path, script: Script | None = one_hit, stock: bool = False, **options: Any) -> Any:
    """RecastGRPOTrainer, or the stock one, on the checkpoint under `folder`; our own arguments are taken out of `options`."""
    ours = {
        name: options.pop(name)
        for name in ("constructor", "signal_config", "anchor", "structural", "levels")
        if name in options
    }
    rollout = options.pop("rollout_func", None) or (scripted(script) if script else None)
    common = {
        "model": AutoModelForCausalLM.from_pretrained(folder / "model"),
        "processing_class": AutoTokenizer.from_pretrained(folder / "model"),
        "reward_funcs": options.pop("reward_funcs", SCORES.reward),
        "train_dataset": options.pop("train_dataset", None) or examples(options.pop("prompts", 4)),
        "rollout_func": rollout,
        "args": config(folder, **options),
    }
    if stock:
        return GRPOTrainer(**common)
    return RecastGRPOTrainer(**common, **{"anchor": "anchor", "structural": SCORES.structural, **ours})


def weights(run: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in run.accelerator.unwrap_model(run.model).named_parameters()}


def change(run: Any) -> dict[str, torch.Tensor]:
    """Train, and say by how much each weight changed."""
    before = weights(run)
    run.train()
    return {name: weight - before[name] for name, weight in weights(run).items()}


@contextmanager
def counted_rows(run: Any) -> Iterator[Counter[str]]:
    """Rows that the forward passes of the old, the reference and the actor policy see."""
    rows: Counter[str] = Counter()

    def hook(kind: str | None) -> Callable[..., None]:
        def count(module: Any, positional: Any, named: Any) -> None:
            rows[kind or ("actor" if torch.is_grad_enabled() else "old")] += len(named["input_ids"])

        return count

    handles = [run.model.register_forward_pre_hook(hook(None), with_kwargs=True)]
    if run.ref_model is not None:
        handles.append(run.ref_model.register_forward_pre_hook(hook("reference"), with_kwargs=True))
    yield rows
    for handle in handles:
        handle.remove()


NO_ANCHOR = {"anchor": lambda example: None if example["prompt"] == PROMPTS[0] else example["anchor"]}
SPREAD: dict[str, dict[str, Any]] = {
    "dapo": {**NO_ANCHOR},
    "grpo": {**NO_ANCHOR, "loss_type": "grpo", "script": uneven},
    "dr_grpo": {**NO_ANCHOR, "loss_type": "dr_grpo", "constructor": "visurf"},
    "bnpo": {"loss_type": "bnpo", "beta": 0.1, "num_iterations": 2, "max_steps": 3},
    "batch statistics": {"constructor": "reinforce_pp", "script": uneven},
    "anchor probabilities": {"constructor": "luffy"},
    "constrained": {"script": None, "rollout_func": constrained_rollout(SIDS), "max_steps": 2},
}


def spread(folder: Path, ranks: int) -> dict[str, list[float]]:
    """Weights' changes of each case, four groups a step on so many processes, two micro-batches each."""
    found = {}
    for name, options in SPREAD.items():
        size = {"per_device_train_batch_size": 2 * G // ranks, "gradient_accumulation_steps": 2}
        moved = change(trainer(folder, **{**size, **options}))
        found[name] = torch.cat([part.flatten() for part in moved.values()]).tolist()
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1]) / f"{sys.argv[2]}-{os.environ['RANK']}.json"
    target.write_text(json.dumps(spread(Path(sys.argv[1]), ranks=2)))
    torch.distributed.destroy_process_group()
