"""`recast-sim check`: a page on one constructor, shipped or one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_constructors import NAME, TEXT, write_own

from recast_analysis.reports.run_kinds import run_report

SIM = [sys.executable, "-c", "from recast_sim.cli import main; main()"]
WORLD = ["--environment.items", "60", "--environment.sizes", "4", "4", "4", "--environment.train-prompts", "128"]
WORLD += ["--environment.heldout-prompts", "64", "--group-size", "8", "--regime", "0.7", "0.25", "0.05"]


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*SIM, "check", *map(str, arguments), *WORLD]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.slow
def test_ones_own_constructor_on_one_page(tmp_path: Path) -> None:
    file = write_own(tmp_path)
    done = check(f"{file}:{NAME}", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert list(found["cost"]) == [NAME, "grpo", "recast", "sft"]
    assert found["weights"][NAME] == pytest.approx(found["weights"]["recast"])  # the same steps
    assert [row["constructor"] for row in found["updates"]] == list(found["cost"])
    assert Path(found["figure"]).stat().st_size > 10_000
    shown = run_report(tmp_path / "out")
    assert shown.summary["constructor"] == NAME


@pytest.mark.slow
def test_a_declaration_that_does_not_hold_ends_with_status_1(tmp_path: Path) -> None:
    file = write_own(tmp_path, TEXT.replace('width="2"', 'width="G"'))
    done = check("--plugin", file, NAME, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "DOES NOT HOLD" in done.stdout
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]["broken"] == [
        "rows that reach the actor, at most"
    ]


def test_a_name_is_asked_for() -> None:
    done = check()
    assert done.returncode == 2
    assert "name: missing" in done.stderr
