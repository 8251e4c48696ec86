"""The launch in verl without verl: its presets, the script's arguments, and the forecast of a dry run."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from text_world import text_checkpoint
from verl_launch import SCRIPT, launch_arguments

from recast_sim.configio import ConfigError
from recast_train.adapters.verl.launch_forecast import PRESETS, forecast_lines, launch_config, launch_forecast
from recast_train.adapters.verl.options import check_config, read_sampler_config

pytestmark = pytest.mark.adapters
OF_VERL = {  # verl 0.9's own values of keys that the check reads and no preset sets
    "trainer.v1.trainer_mode": "sync",
    "reward.reward_model.enable": False,
    "actor_rollout_ref.rollout.agent.default_agent_loop": "single_turn_agent",
}


class Tree(dict[str, Any]):
    """A config whose keys are attributes, as verl's."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def tree(flat: dict[str, Any]) -> Tree:
    found = Tree()
    for key, value in flat.items():
        *parents, last = key.split(".")
        at = found
        for name in parents:
            at = at.setdefault(name, Tree())
        at[last] = value
    return found


@pytest.mark.parametrize("constructor", ["recast", "grpo", "sft_hard_negative"])
@pytest.mark.parametrize("beam", ["0", "1"])
def test_the_launch_passes_the_samplers_own_check(constructor: str, beam: str, tmp_path: Path) -> None:
    config = launch_config(launch_arguments(tmp_path, CONSTRUCTOR=constructor, BEAM=beam))
    assert config["algorithm.adv_estimator"] == f"recast_{constructor}"
    whole = tree(OF_VERL | config)
    check_config(whole, read_sampler_config(whole.trainer.v1.sampler.sampler_kwargs))
    whole.actor_rollout_ref.actor["ppo_mini_batch_size"] = 64
    with pytest.raises(ConfigError, match="64 makes mini-batches"):
        check_config(whole, read_sampler_config(whole.trainer.v1.sampler.sampler_kwargs))


def test_what_the_script_sets_and_what_comes_after_it_counts(tmp_path: Path) -> None:
    config = launch_config(
        launch_arguments(tmp_path, "trainer.save_freq=7", "+a.new.key=[1,2]", GPUS="4", NODES="2", TP="2", CONSTRUCTOR="grpo")
    )
    wanted = {
        "data.train_files": "/data/train.parquet",
        "data.train_batch_size": 4,  # a link to the cards of a node
        "trainer.nnodes": 2,
        "trainer.save_freq": 7,
        "a.new.key": [1, 2],
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
        "actor_rollout_ref.actor.optim.lr": 2e-6,  # YAML takes 2e-6 for text
        "trainer.default_local_dir": "checkpoints/recast/openonerec-grpo",
        "trainer.rollout_data_dir": "checkpoints/recast/openonerec-grpo/rollouts",
    }
    assert {key: config[key] for key in wanted} == wanted


def test_the_presets_name_what_the_adapter_has() -> None:
    config = launch_config(["+recast=sampler", "trainer.default_local_dir=x"])
    for module, name in (
        (config["trainer.v1.sampler.custom_sampler.path"], None),
        (config["reward.custom_reward_function.path"], "compute_score"),
    ):
        module = module.removeprefix("pkg://")
        assert importlib.util.find_spec(module) is not None
        assert name is None or hasattr(importlib.import_module(module), name)
    sampler = (PRESETS.parent / "sampler.py").read_text()
    assert f"class {config['trainer.v1.sampler.custom_sampler.name']}(" in sampler


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"\+recast: \[\] must be one of openonerec, sampler"),
        (["+recast=other"], r"\['other'\] must be one of"),
        (["+recast=sampler"], "trainer.default_local_dir is set nowhere; set it as trainer.default_local_dir=VALUE"),
    ],
)
def test_an_argument_that_is_none_says_so(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        launch_config(arguments)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    text_checkpoint(folder / "model")
    (folder / "data").mkdir()
    pl.DataFrame({"prompt": range(50)}).write_parquet(folder / "data" / "train.parquet")
    return folder


def forecast(world: Path, tmp_path: Path, *words: str, **environment: str) -> dict[str, Any]:
    given = {"MODEL": str(world / "model"), "DATA": str(world / "data"), **environment}
    return launch_forecast(launch_config(launch_arguments(tmp_path, *words, **given)), 80, 1000.0)


def test_the_forecast_by_hand(world: Path, tmp_path: Path) -> None:
    found = forecast(world, tmp_path, GPUS="4", NODES="2")
    P = found["parameters"]
    # 14 tokens of width 16, tied; a layer: q 16x32, k and v 16x16, o 32x16, norms of heads 8 + 8, mlp 3x16x24, norms 2x16
    assert P == 14 * 16 + 2 * (512 + 256 + 256 + 512 + 16 + 1152 + 32) + 16
    assert (found["prompts"], found["cards"], found["steps"]) == (50, 8, 50 // 4 * 20)
    assert (found["trained"], found["reference"], found["served"]) == (2 * P, P / 2, 2 * P)
    assert found["logits"] == 4 * 14 * 16384
    assert found["cache"] == 0.5 * 80 * 2**30 - 2 * P
    assert found["tokens"] == {"sampled": 4 * 32 * 1040, "read by the actor": 4 * 32 * 11280}
    assert found["hours"] == pytest.approx(240 * 4 * 32 * 12320 / 1000 / 8 / 3600)
    assert found["disk"] == 2 * 12 * P
    more = forecast(world, tmp_path, "actor_rollout_ref.actor.use_kl_loss=false", GPUS="4", NODES="2", TP="2")
    assert (more["reference"], more["served"]) == (0, P)


def test_a_pass_keeps_less_where_activations_are_computed_again(world: Path, tmp_path: Path) -> None:
    kept = [
        forecast(world, tmp_path, f"actor_rollout_ref.model.enable_gradient_checkpointing={on}")["activations"]
        for on in ("true", "false")
    ]
    assert 0 < kept[0] < kept[1]


def test_what_does_not_fit_is_said(world: Path, tmp_path: Path) -> None:
    found = forecast(world, tmp_path)
    assert not [line for line in forecast_lines(found, 80) if line.startswith("warning")]
    small = found | {"cache": -1.0, "disk": found["free"] + 1, "trained": 81 * 2**30}
    told = [line for line in forecast_lines(small, 80) if line.startswith("warning")]
    assert [word for word in ("raise TP", "does not fit on a card", "disk is too small") if word in " ".join(told)] == [
        "raise TP", "does not fit on a card", "disk is too small",
    ]  # fmt: skip


def test_a_dry_run_prints_the_command_and_the_forecast(world: Path) -> None:
    own = {**os.environ, "PYTHON": sys.executable, "MODEL": str(world / "model"), "DATA": str(world / "data")}
    command = ["bash", str(SCRIPT), "--dry-run", "trainer.total_epochs=1"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert "-m verl.trainer.main_ppo" in first
    assert "+recast=openonerec" in first
    assert first.rstrip().endswith("trainer.total_epochs=1")
    assert lines[0] == "prompts: 50; steps: 6 (where no prompt is too long)"
    assert any(line.startswith("hours: set TOKENS_PER_SECOND") for line in lines)


def test_a_dry_run_without_its_data_is_one_line(tmp_path: Path, world: Path) -> None:
    own = {**os.environ, "PYTHON": sys.executable, "MODEL": str(world / "model"), "DATA": str(tmp_path)}
    done = subprocess.run(["bash", str(SCRIPT), "--dry-run"], env=own, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        f"error: data.train_files: {tmp_path}/train.parquet is not there; write it with recast-train export verl"
    ]
