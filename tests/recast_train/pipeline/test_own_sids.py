"""Runs on semantic IDs from outside: a table of the user's by item id, and items that share one, from data to report."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipeline_world import write_recipe
from rich.console import Console
from text_world import PROMPT, text_checkpoint

from recast_analysis.reports.real.run import report
from recast_analysis.terminal import print_report
from recast_sim.configio import load_config, override
from recast_sim.runs import RunError
from recast_train.data import DataConfig, load_source
from recast_train.model import ModelConfig
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.semantic_id import SidConfig, load_sids

SHARED = [(item % 3, item % 4) for item in range(24)]  # 12 IDs, two items each
QUICK = {
    "sft.steps": 8,
    "rl.steps": 2,
    "evaluation.learning_prompts": 8,
    "evaluation.prompts": 40,
    "sft.validation_prompts": 40,
}


def write_shared(folder: Path) -> Path:
    """LETTER's and MiniOneRec's form, items in an order of their own."""
    values = {f"i{item}": [f"<a_{a}>", f"<b_{b}>"] for item, (a, b) in reversed(list(enumerate(SHARED)))}
    (folder / "x.index.json").write_text(json.dumps(values))
    return folder / "x.index.json"


def shown(root: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(report(root), console)
    return " ".join(console.file.getvalue().split())  # pyright: ignore[reportAttributeAccessIssue]


def test_a_table_of_the_users_is_used_by_item_id(tmp_path: Path) -> None:
    config = override(load_config(RealConfig, write_recipe(tmp_path, ("recast",))), QUICK)
    config = replace(config, sids=SidConfig(path=write_shared(tmp_path)))
    results = run_real(config, 0, tmp_path / "run", False)
    table = load_sids(tmp_path / "run" / "sids")
    codes = dict(zip(table.items, table.codes_IL.tolist(), strict=True))
    assert codes == {f"i{item}": list(code) for item, code in enumerate(SHARED)}
    assert results["sids"]["collisions"] == 24
    assert results["sids"]["train_agreement"]["random"] > 0
    assert all(
        0 <= row["hr@10"] <= 1 for row in (results["sft"], *results["methods"].values(), *results["references"].values())
    )
    assert results["references"]["sequential"]["unfiltered"]["hr@10"] == 1.0  # 12 IDs, and the next item follows the last
    assert "24 items shared their codes, they keep it: IDs are ranked" in shown(tmp_path / "run")


def test_a_level_tells_shared_ids_apart_on_request(tmp_path: Path) -> None:
    config = override(load_config(RealConfig, write_recipe(tmp_path, ("recast",))), QUICK)
    config = replace(config, sids=SidConfig(path=write_shared(tmp_path), collisions="level"))
    results = run_real(config, 0, tmp_path / "run", False)
    assert results["sids"]["sizes"] == [3, 4, 2]
    codes = load_sids(tmp_path / "run" / "sids").codes_IL
    assert len(np.unique(codes, axis=0)) == 24
    assert "24 items shared their codes, the last level tells them apart" in shown(tmp_path / "run")


def write_release(folder: Path) -> Path:
    """MiniOneRec's own layout, with items that share an SID: folders of splits and of the index."""
    rng = np.random.default_rng(0)
    codes = {str(item): (item % 4, item % 3, item // 2) for item in range(10)} | {"10": (2, 1, 3), "11": (2, 1, 3)}
    tokens = {item: [f"<{letter}_{code}>" for letter, code in zip("abc", own, strict=True)] for item, own in codes.items()}
    for name in ("index", "train", "valid", "test"):
        (folder / name).mkdir(parents=True)
    (folder / "index" / "Toys.index.json").write_text(json.dumps(tokens))
    header = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid"
    for split, count in (("train", 30), ("valid", 8), ("test", 8)):
        lines = [header]
        for user in range(count):
            *past, target = (str(item) for item in rng.integers(12, size=4))
            cells = [[f"title {item}" for item in past], f"title {target}", [int(item) for item in past], target]
            cells += [["".join(tokens[item]) for item in past], "".join(tokens[target])]
            lines.append(",".join([f"U{user}", *(f'"{cell}"' for cell in cells)]))
        (folder / split / "Toys.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder


@pytest.mark.parametrize("collisions", [None, "level"])
def test_minionerecs_own_index_is_trained_on(tmp_path: Path, collisions) -> None:
    folder = write_release(tmp_path / "m")
    config = override(load_config(RealConfig, write_recipe(tmp_path, ("recast",))), QUICK)
    config = replace(config, data=DataConfig("minionerec", folder, max_history=5), sids=SidConfig(collisions=collisions))
    results = run_real(config, 0, tmp_path / "run", False)
    leaves = 12 if collisions else 11
    assert len(np.unique(load_sids(tmp_path / "run" / "sids").codes_IL, axis=0)) == leaves
    assert results["sids"]["collisions"] == 2
    with pytest.raises(RunError, match=r"sids\.path: .* stands beside the semantic IDs of the data"):
        run_real(replace(config, sids=SidConfig(path=folder)), 0, tmp_path / "other", False)


STARTS = [
    (True, 0, "checkpoint", "the checkpoint"),
    (False, 0, "untrained", "not trained"),
    (True, 8, "supervised", "supervised"),
]


@pytest.mark.parametrize(("own", "steps", "start", "words"), STARTS)
def test_a_start_is_called_what_it_is(tmp_path: Path, own: bool, steps: int, start: str, words: str) -> None:
    """A checkpoint with MiniOneRec's tokens, sorted as text, and one that has none of them."""
    release = write_release(tmp_path / "m")
    index = json.loads((release / "index" / "Toys.index.json").read_text())
    tokens = tuple(sorted({token for sid in index.values() for token in sid})) if own else ()
    model = ModelConfig(checkpoint=text_checkpoint(tmp_path / "lm", names=tokens), vocabulary="text", prompt=PROMPT)
    config = override(load_config(RealConfig, write_recipe(tmp_path, ("recast",))), QUICK | {"sft.steps": steps})
    config = replace(config, model=model, data=DataConfig("minionerec", release, max_history=5))
    assert run_real(config, 0, tmp_path / "run", False)["sft"]["start"] == start
    found = shown(tmp_path / "run")
    assert f"| start ({words}) |" in found
    assert ("supervised" in found) == (start == "supervised")


def test_titles_and_items_of_a_release_are_kept(tmp_path: Path) -> None:
    source = load_source(DataConfig("minionerec", write_release(tmp_path / "m")))
    assert source.items == sorted(map(str, range(12)))
    assert source.titles == [f"title {item}" for item in source.items]
