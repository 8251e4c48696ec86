"""A stage's output that was made from other things is refused, and says from what; the same things go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_world import write_recipe

from recast_sim.configio import load_config, override
from recast_sim.runs import RunError
from recast_train.pipeline.made_from import digest, refuse_stale
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real

QUICK = {"sft.steps": 8, "rl.steps": 2, "evaluation.learning_prompts": 0, "evaluation.prompts": 20}


def other_data(folder: Path) -> Path:
    """The recipe on data of the same items and users whose walks are others."""
    folder.mkdir()
    recipe = write_recipe(folder, ("recast",))
    lines = (folder / "tiny.inter").read_text().splitlines()
    (folder / "tiny.inter").write_text("\n".join([lines[0], *(line.replace("\ti5\t", "\ti6\t") for line in lines[1:])]) + "\n")
    return recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealConfig, RealConfig, Path]:
    folder = tmp_path_factory.mktemp("stale")
    ours = override(load_config(RealConfig, write_recipe(folder, ("recast",))), QUICK)
    theirs = override(load_config(RealConfig, other_data(folder / "other")), QUICK)
    run_real(ours, 0, folder / "run", False)
    return ours, theirs, folder / "run"


def test_outputs_of_the_same_things_are_used(world, tmp_path: Path) -> None:
    ours, _, root = world
    for name in ("sids", "sft"):
        shutil.copytree(root / name, tmp_path / "run" / name)
    shutil.copy(root / "references.json", tmp_path / "run")
    before = (tmp_path / "run" / "sft" / "manifest.json").read_bytes()
    run_real(replace(ours, rl=replace(ours.rl, learning_rate=1e-5)), 0, tmp_path / "run", False)
    assert (tmp_path / "run" / "sft" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("stage", ["sids", "sft", "references.json"])
def test_outputs_of_other_data_are_refused(world, tmp_path: Path, stage: str) -> None:
    _, theirs, root = world
    copy = shutil.copytree if (root / stage).is_dir() else shutil.copy
    (tmp_path / "run").mkdir()
    copy(root / stage, tmp_path / "run" / stage)
    with pytest.raises(RunError, match=rf"{stage}: was made from other data \(hash \w+, now \w+\); delete it, then --resume"):
        run_real(theirs, 0, tmp_path / "run", False)


def test_a_file_that_changes_under_a_run_is_seen(world, tmp_path: Path) -> None:
    ours, theirs, root = world
    assert theirs.data.path is not None
    shutil.copytree(root, tmp_path / "run")
    file = tmp_path / "tiny.inter"
    file.write_text(Path(str(ours.data.path)).read_text())
    moved = replace(ours, data=replace(ours.data, path=file))
    run_real(moved, 0, tmp_path / "mine", False)
    file.write_text(theirs.data.path.read_text())
    with pytest.raises(RunError, match="mine: was made from other data"):
        run_real(moved, 0, tmp_path / "mine", True)


@pytest.mark.parametrize(
    ("stage", "changes", "seed", "said"),
    [
        ("sids", {"sids.sizes": (5, 3)}, 0, "sids: was made from other settings"),
        ("sids", {}, 1, "sids: was made from other seed"),
        ("references.json", {"evaluation.prompts": 5}, 0, "references.json: was made from other test prompts"),
        ("sft", {"evaluation.prompts": 5}, 0, "evaluation: was made from other evaluation settings"),
        ("sft", {"sids.sizes": (5, 3)}, 0, "sft: was made from other semantic IDs"),
    ],
)
def test_other_settings_are_refused_by_name(world, tmp_path: Path, stage: str, changes: dict, seed: int, said: str) -> None:
    ours, _, root = world
    (tmp_path / "run").mkdir()
    (shutil.copytree if (root / stage).is_dir() else shutil.copy)(root / stage, tmp_path / "run" / stage)
    with pytest.raises(RunError, match=said):
        run_real(override(ours, changes), seed, tmp_path / "run", False)


def test_an_output_that_does_not_say_is_refused(world, tmp_path: Path) -> None:
    ours, _, root = world
    shutil.copytree(root / "sids", tmp_path / "run" / "sids")
    (tmp_path / "run" / "sids" / "made_from.json").unlink()
    with pytest.raises(RunError, match="sids: does not say what it was made from"):
        run_real(ours, 0, tmp_path / "run", False)
    assert json.loads((root / "sids" / "made_from.json").read_text()).keys() == {"data", "settings", "seed"}


def test_hashes_are_of_the_content() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    refuse_stale(Path("x"), {"data": "1"}, {"data": "1"})
    for kept in ({"data": "2"}, {}, {"data": "1", "more": "3"}, None, [1]):
        with pytest.raises(RunError, match=r"x: (was made from other|does not say)"):
            refuse_stale(Path("x"), kept, {"data": "1"})  # pyright: ignore[reportArgumentType]
