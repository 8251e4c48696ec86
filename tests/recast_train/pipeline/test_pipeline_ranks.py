"""A whole real run on two gloo processes against one, and killed on two, resumed by one. Two launches in all."""

import json
from pathlib import Path
from typing import Any

import engine_world
import numpy as np
import pipeline_world as world
import pytest

from recast_sim.runs import read_run
from recast_sim.runs.model_state import read_tensors

pytestmark = pytest.mark.slow
STRATEGIES = ("ddp", "fsdp2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process's run in "single", those of two in "ddp" and "fsdp2", and killed ones."""
    folder = tmp_path_factory.mktemp("ranks")
    recipe = world.write_recipe(folder)
    world.run_spread(recipe, "single", folder / "single")
    for strategy, other in zip(STRATEGIES, reversed(STRATEGIES), strict=True):
        code, printed, _ = engine_world.launch(folder, strategy, script=world.__file__)
        assert code != 0, printed  # both are killed at the end
        assert (folder / strategy / "results.json").exists(), printed
        assert not (folder / f"killed-{other}" / "results.json").exists(), printed
    return folder


def assert_close(found: Any, expected: Any, at: str = "") -> None:
    """Equal, floats to 1e-4: ranks add gradients in another order."""
    assert type(found) is type(expected), at
    if isinstance(expected, dict):
        assert list(found) == list(expected), at
        for key in expected:
            assert_close(found[key], expected[key], f"{at}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), at
        for row, pair in enumerate(zip(found, expected, strict=True)):
            assert_close(*pair, f"{at}[{row}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), at
    else:
        assert found == expected, at


def assert_same_run(found: Path, expected: Path) -> None:
    results = [json.loads((root / "results.json").read_text()) for root in (found, expected)]
    assert_close(*map(world.without_seconds, results))
    stages = ["sft", *(f"rl/{row['folder']}" for row in results[1]["methods"].values())]
    assert len(stages) == 1 + len(world.METHODS)
    for stage in stages:
        ours, theirs = read_run(found / stage), read_run(expected / stage)
        for table in ("steps", "evals"):
            rows, other = (world.untimed(getattr(run, table)).to_dicts() for run in (ours, theirs))
            assert len(other) >= 3
            assert_close(rows, other, f"{stage} {table}")
        assert ours.groups.equals(theirs.groups)
        weights, other = (read_tensors(root / stage / "model", optimiser=False)[0] for root in (found, expected))
        assert all(np.allclose(weights[name], other[name], rtol=1e-4, atol=1e-4) for name in other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_equal_one(strategy: str, folder: Path) -> None:
    assert_same_run(folder / strategy, folder / "single")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_on_two_and_resumed_by_one_equals_unbroken(strategy: Any, folder: Path) -> None:
    root = folder / f"killed-{strategy}"
    stage = "sft" if strategy == "ddp" else "rl/luffy"
    assert read_run(root / stage).status == "running"
    assert len(list((root / stage / "checkpoints").glob("step-*"))) == 1
    world.run_spread(folder / "tiny.toml", strategy, root)
    assert_same_run(root, folder / "single")
