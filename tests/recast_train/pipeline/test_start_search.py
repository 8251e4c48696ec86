"""A search for a supervised start: every candidate is kept, none looks at test prompts, and a killed search goes on."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pipeline_world import write_recipe

from recast_sim.configio import load_config
from recast_sim.runs.reader import read_run
from recast_train import cli
from recast_train.evaluate import QUICK, score_prompts
from recast_train.model import TrainError
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.run_task import opened_task
from recast_train.pipeline.stages import supervised
from recast_train.pipeline.start_search import SearchConfig

CANDIDATES = """
[[candidates]]
label = "as it is"
[[candidates]]
label = "wider"
"setting.model.hidden" = 32
[[candidates]]
label = "slow"
"setting.sft.learning_rate" = 1e-6
[[candidates]]
label = "diverges"
"setting.sft.learning_rate" = 1e19
[[candidates]]
label = "too many codes"
"setting.sids.sizes" = [400, 3]
""".replace("setting.", "")


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-train", "search", *arguments])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    return int(raised.value.code or 0)


@pytest.fixture
def search_file(tmp_path: Path) -> Path:
    lines = write_recipe(tmp_path).read_text().splitlines()
    plain = [line for line in lines if line and not line.startswith("methods")]
    own = [f"setting.{line}" if " = {" in line and not line.startswith("objective") else line for line in plain]
    text = "\n".join(line.replace("[sft]", "[setting.sft]").replace("[rl]", "[setting.rl]") for line in own)
    (tmp_path / "search.toml").write_text(text + "\n" + CANDIDATES)
    return tmp_path / "search.toml"


def test_every_candidate_is_judged_on_validation_prompts(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "search"
    arguments = (str(search_file), "--out", str(root), "--seed", "2", "--workers", "1")
    assert command_line(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    found = {row["candidate"]: row for row in pl.read_parquet(root / "candidates.parquet").to_dicts()}
    assert list(found) == ["as it is", "wider", "slow", "diverges", "too many codes"]
    config = load_config(SearchConfig, search_file)
    for label in ("as it is", "wider", "slow"):
        with opened_task(root / "candidates" / label, config.recipes()[label], 2) as task:
            model = supervised(task)
            scores = score_prompts(model, task.catalog, task.validation, QUICK)
        assert found[label]["ndcg@10"] == pytest.approx(scores.summary()["unfiltered"]["ndcg@10"])
        hit_N = scores.rank_unfiltered_N <= 10
        assert found[label]["hr@10_error"] == pytest.approx(np.sqrt(hit_N.mean() * (1 - hit_N.mean()) / len(hit_N)))
        assert found[label]["parameters"] == model.parameter_count
        assert found[label]["best_step"] == read_run(root / "candidates" / label / "sft").manifest["summary"]["best_step"]
        assert f"{found[label]['hr@10']:.4f} +- " in shown
    assert found["slow"]["ndcg@10"] < found["as it is"]["ndcg@10"]
    assert found["slow"]["parameters"] < found["wider"]["parameters"]
    assert "lower learning_rate" in found["diverges"]["failed"]
    assert "level 1 has 400 codes" in found["too many codes"]["failed"]
    assert f"diverges: {found['diverges']['failed']}" in shown.replace("\n", " ")
    order = [label for label in sorted(found, key=lambda name: -(found[name]["ndcg@10"] or -1)) if not found[label]["failed"]]
    places = [shown.index(f"| {label} ") for label in order]
    assert places == sorted(places)


def test_test_prompts_change_nothing_and_a_search_goes_on(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search_file.write_text(search_file.read_text().split('[[candidates]]\nlabel = "wider"')[0])
    data = tmp_path / "tiny.inter"
    known = data.read_text().splitlines()
    last = {line.split("\t")[0]: place for place, line in enumerate(known) if place}
    other = [re.sub(r"\ti\d+\t", "\ti0\t", line) if place in last.values() else line for place, line in enumerate(known)]
    found = []
    for name, lines in (("one", known), ("two", other)):
        data.write_text("\n".join(lines) + "\n")
        arguments = (str(search_file), "--out", str(tmp_path / name), "--workers", "1")
        assert command_line(monkeypatch, *arguments, "--json") == 0
        (row,) = json.loads(capsys.readouterr().out)["candidates"]
        found.append({key: value for key, value in row.items() if key != "seconds"})
    assert found[0] == found[1]
    assert known != other
    (tmp_path / "two" / "candidates.parquet").unlink()
    manifest = tmp_path / "two" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    assert command_line(monkeypatch, *arguments) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert command_line(monkeypatch, *arguments, "--resume", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["candidates"]
    assert row["ndcg@10"] == found[1]["ndcg@10"]


def test_bad_searches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"SearchConfig\.candidates: \(\) must hold one candidate or more"):
        SearchConfig()
    with pytest.raises(TrainError, match=r"SearchConfig\.candidates: \['a', 'a'\] must each have a label of their own"):
        SearchConfig(candidates=({"label": "a"}, {"label": "a", "sft.steps": 3}))
    with pytest.raises(TrainError, match=r"SearchConfig\.candidates: \['\.\./a'\] must have labels of letters"):
        SearchConfig(candidates=({"label": "../a"},))
    assert isinstance(SearchConfig(candidates=({"label": "a"},)).recipes()["a"], RealConfig.__mro__[1])
