"""`recast-train run --dry-run`: its sizes are those of the model that a run builds, and no folder is left behind."""

import json
from pathlib import Path

import pytest
import torch
from commands import called
from pipeline_world import STEPS, G, P, write_recipe
from text_world import text_checkpoint

from recast_sim.catalog import Catalog
from recast_sim.configio import load_config
from recast_sim.signal import get_constructor
from recast_train.cli import main
from recast_train.model import ModelConfig, build_model, sid_vocabulary
from recast_train.model.build import empty_lm
from recast_train.pipeline.forecast import kept_for_backward
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.step_forecast import kept_rows

CODES = torch.cartesian_prod(torch.arange(5), torch.arange(4), torch.arange(3)).numpy()


def test_the_forecast_is_what_the_run_would_build(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, ("recast", "grpo kl=0.1"))
    done = called(main, "run", recipe, "--out", tmp_path / "run", "--dry-run", "--tokens-per-second", 100, "--json")
    assert not done.returncode, done.stderr
    assert not (tmp_path / "run").exists()
    found, config = json.loads(done.stdout), load_config(RealConfig, recipe)
    assert found["semantic_ids"]["stand_in"]
    assert found["steps"] == {"supervised": config.sft.steps, "rl": 2 * STEPS}
    assert found["tokens"]["rollouts"] == pytest.approx(2 * STEPS * P * (found["prompt_tokens"]["mean"] + G * 3))
    assert found["hours"] == pytest.approx(sum(found["tokens"].values()) / 100 / 3600)
    sizes = found["semantic_ids"]["sizes"]
    catalog = Catalog.from_codes(torch.cartesian_prod(*map(torch.arange, sizes)).numpy(), sizes)
    whole = build_model(catalog, config.model, 0)
    assert found["parameters"] == sum(table.numel() for table in whole.lm.parameters())
    assert found["disk"]["bytes"] == 3 * 4 * 4 * found["parameters"]
    timed = called(main, "run", recipe, "--out", tmp_path / "run", "--dry-run", "--tokens-per-second", 20000).stdout
    (hours,) = (line.split("|")[2].strip() for line in timed.splitlines() if line.startswith("| hours"))
    assert float(hours) == pytest.approx(found["hours"] / 200, rel=0.05)  # far below an hour, and not 0.0
    shown = called(main, "run", recipe, "--out", tmp_path / "run", "--dry-run")
    assert "state --tokens-per-second" in shown.stdout
    assert "(not made yet)" in shown.stdout
    asked = called(main, "run", recipe, "--out", tmp_path / "run", "--dry-run", "--device", "cuda").stdout
    warned = "warning: device: cuda is not available here" in asked
    assert warned != torch.cuda.is_available()
    assert shown.stdout.endswith("The same line without --dry-run starts the run.\n")  # no command that drops its options
    assert "one RL step by phase (seconds, this CPU" in shown.stdout
    seconds = found["step"]["seconds"]
    assert set(seconds) == {"recast", "grpo kl=0.1"}
    for of in seconds.values():
        assert of["step"] == pytest.approx(sum(value for phase, value in of.items() if phase != "step"))
        assert (of["old"], of["communication"]) == (0, 0)
    assert 0 < seconds["recast"]["actor"] < seconds["grpo kl=0.1"]["actor"]


def test_a_step_on_a_card_by_method(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, ("recast updates_per_batch=2", "sft", "care"))
    done = called(main, "run", recipe, "--out", tmp_path / "run", "--dry-run", "--card", "A100", "--json")
    assert not done.returncode, done.stderr
    step = json.loads(done.stdout)["step"]
    assert step["machine"] == "A100"
    of = step["seconds"]
    assert of["recast updates_per_batch=2"]["old"] > 0 == of["sft"]["old"]
    assert of["sft"]["rollout"] == 0 < of["care"]["rollout"]


@pytest.mark.parametrize(("name", "kept"), [("recast", 2), ("sft", 1), ("grpo", 8), ("luffy", 8)])
def test_rows_that_a_constructor_keeps(name: str, kept: int) -> None:
    assert kept_rows(get_constructor(name), 8) == kept


@pytest.mark.parametrize("checkpointed", [False, True])
def test_what_a_pass_keeps_is_what_autograd_saves_on_the_cpu(checkpointed: bool) -> None:
    catalog = Catalog.from_codes(CODES)
    config = ModelConfig(
        hidden=32, layers=3, heads=4, feed_forward=80, attention_dropout=0.0, gradient_checkpointing=checkpointed
    )
    real = build_model(catalog, config, 0).lm.train()
    here = kept_for_backward(real, 2, 24)
    there = kept_for_backward(empty_lm(config, sid_vocabulary(catalog)), 2, 24)
    assert there == pytest.approx(here, rel=0.05)
    assert kept_for_backward(real, 4, 24) == pytest.approx(2 * here, rel=0.05)


def test_a_checkpoint_is_sized_without_being_read(tmp_path: Path) -> None:
    folder = text_checkpoint(tmp_path / "lm")
    catalog = Catalog.from_codes(CODES)
    config = ModelConfig(checkpoint=folder, vocabulary="text")
    whole = build_model(catalog, config, 0)
    (folder / "model.safetensors").write_bytes(b"")
    empty = empty_lm(config, whole.vocabulary)
    assert [tuple(table.shape) for table in empty.parameters()] == [tuple(table.shape) for table in whole.lm.parameters()]
    assert {table.device.type for table in empty.parameters()} == {"meta"}
