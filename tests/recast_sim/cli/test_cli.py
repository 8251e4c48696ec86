"""The command lines as a newcomer runs them, in real subprocesses; bad input, but for one, within the tests' own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from commands import called

import recast_analysis.cli
import recast_sim.cli
from recast_sim.runs import read_run

SIM = [sys.executable, "-c", "from recast_sim.cli import main; main()"]
SMALL = """
convergence = 0.8
[environment]
items = 40
sizes = [4, 4, 4]
dim = 6
train_prompts = 256
heldout_prompts = 64
[training]
constructor = "recast"
group_size = 8
prompts_per_step = 8
steps = 400
evaluate_every = 50
checkpoint_every = 20
"""


def call(command: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quickstart_prints_saves_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = call(SIM, "quickstart", "--seeds", 2, "--steps", 10, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["regime_before"]) == {"all_zero", "single_hit", "multi_hit", "all_hit", "learnable"}
    for share, wanted in {"all_zero": 0.85, "single_hit": 0.13, "multi_hit": 0.02}.items():
        assert result["regime_before"][share] == pytest.approx(wanted, abs=0.01)
    assert result["regime_after"]["all_zero"] == 0
    assert list(result["constructors"]) == ["grpo", "repair_only", "boundary_only", "recast", "sft"]
    for row in result["constructors"].values():
        assert set(row) >= {"learnable", "update_width", "gradient_variance", "gradient_cosine", "cools", "learns"}
        assert set(row["budget_ratio"]) >= {"value", "low", "high", "horizon", "censored", "trivial"}
    assert result["constructors"]["recast"]["gradient_cosine"] < result["constructors"]["grpo"]["gradient_cosine"]
    assert list(result["learning"]["rows"])[:3] == ["base", "base_temperature", "base_level_weights"]
    assert result["meaning"].startswith("What it means: on greedy Pass@1")
    assert Path(result["figure"]).stat().st_size > 20_000
    assert read_run(Path(result["run"])).status == "complete"
    again = called(recast_sim.cli.main, "quickstart", "--seeds", 2, "--steps", 10, "--out", out)
    assert again.returncode == 2
    assert "holds a run already" in again.stderr
    shown = called(recast_analysis.cli.main, "show", out, "--json")
    (row,) = json.loads(shown.stdout)
    assert (row["kind"], row["status"]) == ("quickstart", "complete")
    drawn = called(recast_analysis.cli.main, "figures", out, "--out", tmp_path / "figures", "--json")
    (found,) = json.loads(drawn.stdout)
    names = [Path(picture).stem for picture in found["figures"]]
    assert names == ["figure", "regimes", "repair", "gradients", "budget", "pass-at-k"]
    (words,) = found["left_out"]
    assert "a simulated prompt is a vector" in words
    assert (tmp_path / "figures" / "regimes.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_killed_run_is_readable_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    whole = call(SIM, "train", config, "--out", tmp_path / "whole", "--json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["step"] == 400
    torn = tmp_path / "torn"
    process = subprocess.Popen([*SIM, "train", str(config), "--out", str(torn)], stderr=subprocess.DEVNULL)
    lines = torn / "steps.jsonl"
    while not lines.exists() or lines.read_text().count("\n") < 50:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = read_run(torn)
    assert killed.status == "running"
    assert len(killed.steps) >= 50
    assert killed.steps.equals(read_run(tmp_path / "whole").steps.head(len(killed.steps)))
    changed = call(SIM, "train", config, "--out", torn, "--resume", "--training.steps", 500)
    assert changed.returncode == 2
    assert "'training.steps' was 400 and is now 500" in changed.stderr
    resumed = call(SIM, "train", config, "--out", torn, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for table in ("steps", "evals"):
        assert pl.read_parquet(torn / f"{table}.parquet").equals(pl.read_parquet(tmp_path / "whole" / f"{table}.parquet"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--environment.items", "0"], "items"),
        (["train", "--environment.rho", "2"], "rho"),
        (["train", "--training.constructor", "magic"], "'magic' is not registered"),
        (["train", "--training.group-size", "1"], "group_size: 1"),
        (["train", "--training.learning-rate", "-1"], "learning_rate"),
        (["calibrate", "--regime", "0.5", "0.1", "0.1"], "three shares"),
        (["train", "nowhere.toml"], "nowhere.toml"),
        (["quickstart", "--seeds", "0"], "seeds"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = called(recast_sim.cli.main, *arguments, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert words in done.stderr.replace("-", "_") or words in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_bad_input_in_a_real_process(tmp_path: Path) -> None:
    done = call(SIM, "train", "--environment.items", 0, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr == called(recast_sim.cli.main, "train", "--environment.items", 0, "--out", tmp_path / "run").stderr


def test_report_refuses_what_is_no_run(tmp_path: Path) -> None:
    done = called(recast_analysis.cli.main, "show", tmp_path)
    assert done.returncode == 2
    assert "no run folder" in done.stderr
    assert called(recast_analysis.cli.main, "show").returncode == 2
