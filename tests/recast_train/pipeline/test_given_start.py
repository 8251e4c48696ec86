"""A start by path: a run, a stage or a checkpoint of another run, as it is or trained on; supervision that is stopped early."""

from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_world import write_recipe
from safetensors.torch import load_file

from recast_sim.configio import load_config, override
from recast_sim.runs import RunError, read_run
from recast_train.model import TrainError
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.semantic_id import SidConfig, load_sids
from recast_train.supervised import SftConfig

QUICK = {
    "sft.steps": 12,
    "sft.evaluate_every": 4,
    "rl.steps": 2,
    "evaluation.learning_prompts": 0,
    "evaluation.prompts": 40,
    "sft.validation_prompts": 40,
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealConfig, Path, dict]:
    folder = tmp_path_factory.mktemp("first")
    config = override(load_config(RealConfig, write_recipe(folder, ("recast",))), QUICK)
    return config, folder / "run", run_real(config, 5, folder / "run", False)


def from_path(config: RealConfig, start: Path, **changes) -> RealConfig:
    return override(replace(config, sids=SidConfig(), start=start), changes)


def weights(folder: Path) -> dict:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(("inside", "stage"), [("", "sft"), ("sft", "sft"), ("rl/recast", "rl/recast"), ("sft/model", "sft")])
def test_a_start_is_taken_as_it_is(first, inside: str, stage: str, tmp_path: Path) -> None:
    config, root, results = first
    found = run_real(from_path(config, root / inside, **{"sft.steps": 0}), 5, tmp_path / "run", False)
    assert found["sft"]["start"] == "given"
    assert (load_sids(tmp_path / "run" / "sids").codes_IL == load_sids(root / "sids").codes_IL).all()
    before, after = weights(root / stage), weights(tmp_path / "run" / "sft")
    assert all((before[name] == after[name]).all() for name in before)
    if stage == "sft":
        assert found["sft"]["pass_at_1_sampled"] == pytest.approx(results["sft"]["pass_at_1_sampled"], rel=1e-6)


def test_supervision_goes_on_from_a_start(first, tmp_path: Path) -> None:
    config, root, _ = first
    run_real(from_path(config, root, **{"sft.steps": 4}), 5, tmp_path / "run", False)
    before, after = weights(root / "sft"), weights(tmp_path / "run" / "sft")
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 0 < moved < 0.1


def test_supervision_that_stops_early_is_the_whole_one_up_to_there(first, tmp_path: Path) -> None:
    config, root, _ = first
    found = run_real(override(config, {"sft.stop": 8}), 5, tmp_path / "run", False)
    assert found["sft"]["steps"] == 8
    whole, early = (read_run(folder / "sft").steps.drop("seconds") for folder in (root, tmp_path / "run"))
    assert early.equals(whole.head(8))


def test_a_start_that_cannot_be_is_refused(first, tmp_path: Path) -> None:
    config, root, _ = first
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"start: .*empty has no semantic IDs"):
        run_real(from_path(config, tmp_path / "empty"), 5, tmp_path / "run", False)
    with pytest.raises(RunError, match=r"start: .*sids holds no model.safetensors"):
        run_real(from_path(config, root / "sids"), 5, tmp_path / "run2", False)
    with pytest.raises(RunError, match=r"semantic IDs of its own, and \[sids\] is set beside it"):
        run_real(replace(config, start=root, sids=SidConfig(sizes=(4, 4))), 5, tmp_path / "run3", False)
    with pytest.raises(RunError, match="does not load"):
        run_real(from_path(config, root, **{"model.hidden": config.model.hidden * 2}), 5, tmp_path / "run4", False)
    with pytest.raises(TrainError, match=r"SftConfig\.stop: 9 must be at most steps \(8\)"):
        SftConfig(steps=8, stop=9)
