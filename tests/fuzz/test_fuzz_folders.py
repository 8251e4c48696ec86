"""Run folders from anywhere: a table or a page, or one line and exit 2."""

import json
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import pytest
from comparisons import write_comparison
from hypothesis import given
from hypothesis import strategies as st
from study_tables import user_table, write_study

from recast_analysis.cli import main as report
from recast_sim.cli.theory import Theory, theory
from recast_sim.runs import RunWriter

CURVES = {"grpo": (0.1, 0.2, 0.3), "recast": (0.1, 0.4, 0.4), "sft": (0.1, 0.2, 0.2)}
PROTOCOL = {"seeds": 3}


def write_training(path: Path, killed: bool) -> None:
    config = {"training": {"constructor": "recast", "group_size": 8, "prompts_per_step": 8, "updates_per_batch": 1}}
    writer = RunWriter.create(path, "simulation", config, 0)
    writer.evaluation({"step": 0, "rollouts": 0, "pass_at_1_greedy": 0.1, "recall_at_k": 0.2})
    for step in range(1, 5):
        costs = {"rollouts": 64 * step, "actor_rows": 16 * step, "actor_tokens": 48 * step, "optimiser_steps": step}
        shares = {"before_all_zero": 0.8, "before_single_hit": 0.15, "before_multi_hit": 0.05, "before_all_hit": 0.0}
        writer.step({"step": step, **costs, **shares, "loss": 0.5, "gradient_norm": 1.0, "repaired": 0.5})
    writer.evaluation({"step": 4, "rollouts": 256, "pass_at_1_greedy": 0.2, "recall_at_k": 0.3})
    if not killed:
        writer.groups({"step": [4, 4], "hits": [0, 1]})
        writer.close(summary={"seconds": 1.0})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    write_training(root / "simulation", killed=False)
    write_training(root / "killed", killed=True)
    for kind in ("budget", "map"):
        writer = RunWriter.create(root / kind, kind, {"pairs": [["recast", "grpo"]], "protocol": PROTOCOL}, 0)
        write_comparison(root / kind / "methods", {"one": CURVES}, seeds=3)
        cells = [{"setting": "one", "x": "c", "x_label": "1", "y": "", "y_label": ""}]
        fuzzing.pl.DataFrame(cells).write_parquet(root / kind / "cells.parquet")
        writer.close()
    write_study(root / "study", user_table(lambda method, seed, user: 0.1 + 0.02 * len(method), 2, 6))
    theory(Theory(out=root / "theory", json=True))
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    fuzzing.tell_what_was_tried()


COMMANDS = ("show", "tables", "html", "figures", "claims") if fuzzing.EXAMPLES else ("show", "show", "tables")


@fuzzing.tries(40)
@given(data=st.data())
def test_a_folder_from_anywhere(
    data: st.DataObject, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind, command = data.draw(st.sampled_from(sorted(folders))), data.draw(st.sampled_from(COMMANDS))
    work = tmp_path_factory.getbasetemp() / "fuzz-folders"
    place, how = data.draw(fuzzing.broken_folder(folders[kind], work / "broken"))
    out = () if command in ("show", "tables") else ("--out", work / ("page.md" if command == "claims" else "page.html"))
    done = fuzzing.owed(report, command, place, *out)
    fuzzing.TRIED[f"folder, {command}: {'refused' if done.returncode else 'shown'}"] += 1
    assert not list(work.rglob(".*.tmp")), (kind, how)


def test_the_folders_are_read_as_they_are(folders: dict[str, Path]) -> None:
    for kind, path in folders.items():
        done = fuzzing.owed(report, "show", path, "--json")
        assert json.loads(done.stdout)[0]["run"] == kind, done.stderr
