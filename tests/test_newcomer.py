"""One new file of at most 30 lines with a level-wise constructor goes through every door."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recast_sim import cli
from recast_sim.signal import unregister

NAME = "first_code_twice"
FILE = Path(__file__).parent / "helpers" / "newcomer.py"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    sys.modules.pop("newcomer", None)
    importlib.import_module("newcomer")
    yield
    unregister(NAME)


def sim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["recast-sim", *words, "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_short() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 30


@pytest.mark.slow
def test_recast_sim_trains_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--environment.train-prompts", "256", "--environment.heldout-prompts", "64", "--training.steps", "3")
    final = sim(monkeypatch, capsys, "train", "--training.constructor", NAME, *small, "--out", str(tmp_path / "run"))
    assert final["step"] == 3
    assert final["optimiser_steps"] == 3


@pytest.mark.slow
def test_its_gradient_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--no-calibrate", "--prompts", "32", "--group-sizes", "4", "--training.group-size", "4")
    world = ("--environment.train-prompts", "256", "--environment.heldout-prompts", "64", "--out", str(tmp_path / "gradients"))
    found = sim(monkeypatch, capsys, "gradients", "--constructors", NAME, *small, *world)
    (report,) = found["reports"]
    assert report["method"] == "exact"
    assert report["variance"] > 0


@pytest.mark.slow
def test_the_real_trainer_takes_it(tmp_path: Path) -> None:
    import pipeline_world

    from recast_sim.configio import load_config
    from recast_train.pipeline.recipe import RealConfig
    from recast_train.pipeline.whole_run import run_real

    recipe = pipeline_world.write_recipe(tmp_path, (f"{NAME} w_minus=0.3",))
    found = run_real(load_config(RealConfig, recipe), 3, tmp_path / "run", False, lambda *_: None)
    assert found["methods"][f"{NAME} w_minus=0.3"]["optimiser_steps"] > 0


@pytest.mark.adapters
def test_trl_takes_it(tmp_path: Path) -> None:
    import trl_world

    from recast_train.adapters.trl import SidLevels

    trl_world.write_checkpoint(tmp_path)
    run = trl_world.trainer(tmp_path, trl_world.misses, constructor=NAME, levels=SidLevels(trl_world.SIDS))
    assert any(part.any() for part in trl_world.change(run).values())
