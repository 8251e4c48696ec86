"""A whole real run on a tiny data set: budgets, killed and resumed, the command line, the table and the figure."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pipeline_world import STEPS, G, P, untimed, without_seconds, write_recipe
from rich.console import Console
from safetensors.numpy import load_file

from recast_analysis.reports.real.run import read_results, report
from recast_analysis.terminal import print_report
from recast_sim.configio import load_config
from recast_sim.runs import RunError, read_run
from recast_sim.signal import SignalError
from recast_train import cli
from recast_train.data.references import metrics_from_rank
from recast_train.model import TrainError
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.rl.rl_loop import RlConfig

METHODS = ("grpo", "recast", "sft", "dapo")

KILLED = """
import os, signal, sys
from pathlib import Path
from recast_sim.configio import load_config
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.engine import recorder
recipe, out, label, step = sys.argv[1:]
def report(at, done, total):
    if at == label and done >= int(step):
        os.kill(os.getpid(), signal.SIGKILL)
def half(folder, *rest, **meta):
    write(folder, *rest, **meta)
    if folder.parts[-3:-1] == (label.split()[1], "checkpoints") and f"step-{int(step):08d}" in folder.name:
        (folder / "meta.json").write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)
write = recorder.write_tensors
if label.startswith("writing "):
    recorder.write_tensors = half
run_real(load_config(RealConfig, Path(recipe)), 3, Path(out), True, report)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), METHODS, with_dropout)


def with_dropout(text: str) -> str:
    return text.replace(", dropout = 0.0, attention_dropout = 0.0", "").replace("learning_rate = 0.003", "learning_rate = 0.01")


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("whole") / "run"
    return root, run_real(load_config(RealConfig, recipe), 3, root, resume=False)


def test_budgets_and_columns(whole: tuple[Path, dict[str, Any]]) -> None:
    root, results = whole
    rows = results["methods"]
    assert {name: rows[name]["rollouts"] for name in ("grpo", "recast", "sft")} == {
        "grpo": STEPS * P * G,
        "recast": STEPS * P * G,
        "sft": 0,
    }
    assert STEPS * P * G < rows["dapo"]["rollouts"] <= 3 * STEPS * P * G
    assert rows["grpo"]["actor_rows"] == STEPS * P * G
    assert rows["recast"]["actor_rows"] <= 2 * STEPS * P
    assert rows["sft"]["actor_rows"] == STEPS * P
    assert rows["recast"]["generated_tokens"] == 3 * STEPS * P * G
    assert 0 < rows["recast"]["actor_tokens"] < rows["grpo"]["actor_tokens"]
    for name in METHODS:
        run = read_run(root / "rl" / name)
        assert run.steps["step"].to_list() == list(range(1, STEPS + 1))
        assert run.steps["rollouts"][-1] == rows[name]["rollouts"]
        assert run.evals["step"].to_list() == [0, 3, 5]
        assert set(run.steps["seconds_old"]) == {0.0}  # on-policy: the old log-probabilities are the new ones
        assert run.steps["seconds_actor"].max() > 0
        assert ("before_all_zero" in run.steps.columns) == (name != "sft")


def test_methods_start_alike_and_see_the_same_prompts(whole: tuple[Path, dict[str, Any]]) -> None:
    grpo, recast, sft = (read_run(whole[0] / "rl" / name) for name in ("grpo", "recast", "sft"))
    assert grpo.groups["prompt"].to_list() == recast.groups["prompt"].to_list()
    first = pl.col("step") == 1
    assert grpo.groups.filter(first)["hits"].to_list() == recast.groups.filter(first)["hits"].to_list()
    assert grpo.evals["pass_at_1_sampled"][0] == recast.evals["pass_at_1_sampled"][0] == sft.evals["pass_at_1_sampled"][0]
    assert grpo.evals["pass_at_1_sampled"][-1] != recast.evals["pass_at_1_sampled"][-1]
    assert len(sft.groups) == 0


def test_results_have_every_figure(whole: tuple[Path, dict[str, Any]]) -> None:
    results = report(whole[0]).summary
    for name, row in whole[1]["methods"].items():
        assert "versus_start" not in row  # intervals are the report's
        assert results["methods"][name] == row | {"versus_start": results["methods"][name]["versus_start"]}
    assert list(results["references"]) == ["popularity", "item_knn", "item_knn_recency", "sequential"]
    for row in (*results["references"].values(), results["sft"], *results["methods"].values()):
        assert {"hr@1", "hr@10", "ndcg@10", "unfiltered", "pass_at_1_sampled", "pass_at_1_greedy", "all_zero"} <= set(row)
        assert set(row["unfiltered"]) == set(metrics_from_rank([1]))
    for row in results["methods"].values():
        for metric, cell in row["versus_start"].items():
            assert cell["difference"] == pytest.approx(row[metric] - results["sft"][metric], abs=1e-9)
            assert cell["low"] <= cell["difference"] <= cell["high"]
    assert results["references"]["popularity"]["all_zero"] is None
    assert 0 < results["sft"]["all_zero"] < 1
    assert (results["paper_all_zero"], results["seeds"]) == (0.85, 1)


def test_killed_at_three_points_and_resumed_equals_unbroken(
    whole: tuple[Path, dict[str, Any]], recipe: Path, tmp_path: Path
) -> None:
    root, rng = tmp_path / "run", np.random.default_rng(0)
    points = (
        ("supervised training", int(rng.integers(1, 24))),
        ("grpo", int(rng.integers(1, STEPS))),
        ("writing recast", int(rng.choice([2, 4]))),  # the checkpoint of that step
    )
    for label, step in points:
        command = [sys.executable, "-c", KILLED, str(recipe), str(root), label, str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -9, (label, step, done.stderr)
    assert not (root / "results.json").exists()
    assert read_run(root / "rl" / "recast").status == "running"
    assert len(list((root / "rl" / "recast" / "checkpoints").glob(".*.tmp"))) == 1
    found = run_real(load_config(RealConfig, recipe), 3, root, resume=True)
    assert without_seconds(found) == without_seconds(whole[1])
    for name in ("sft", *(f"rl/{method}" for method in METHODS)):
        ours, unbroken = read_run(root / name), read_run(whole[0] / name)
        assert untimed(ours.steps).equals(untimed(unbroken.steps))
        assert untimed(ours.evals).equals(untimed(unbroken.evals))
        assert ours.groups.equals(unbroken.groups)
        weights, expected = (load_file(folder / name / "model" / "model.safetensors") for folder in (root, whole[0]))
        assert all((weights[key] == expected[key]).all() for key in expected)
    assert not list(root.rglob(".*.tmp"))


def test_a_complete_run_is_read_not_repeated(whole: tuple[Path, dict[str, Any]], recipe: Path) -> None:
    root, results = whole
    config = load_config(RealConfig, recipe)
    assert run_real(config, 3, root, resume=True, report=_never) == json.loads(json.dumps(results))
    with pytest.raises(RunError, match="holds a run already"):
        run_real(config, 3, root, resume=False)
    with pytest.raises(RunError, match="config 'seed' was 3 and is now 4"):
        run_real(config, 4, root, resume=True)


def _never(*_: Any) -> None:
    raise AssertionError("a complete run computes nothing")


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_command_line_prints_one_json_object_and_draws(
    whole: tuple[Path, dict[str, Any]], recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(whole[0])
    assert command_line(monkeypatch, "run", str(recipe), "--seed", "3", "--out", root, "--resume", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = without_seconds(report(whole[0]).summary) | {"run": root, "figure": f"{root}/figure.png"}
    assert without_seconds(found) == json.loads(json.dumps(expected))
    assert (whole[0] / "figure.png").stat().st_size > 10_000
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(report(whole[0]), console)
    text = console.export_text()
    assert "one seed" in text
    assert f"{found['methods']['recast']['hr@10']:.4f}" in text


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--rl.steps", "0"], "--rl.steps: 0 must be at least 1"),
        (["--methods", "nonsense"], "nonsense"),
        (["--device", "tpu"], "--device"),
        (["--rl.stepz", "2"], "--rl.stepz"),
    ],
)
def test_bad_options_give_one_line(
    extra: list[str],
    words: str,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert command_line(monkeypatch, "run", str(recipe), "--out", str(tmp_path / "new"), *extra) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_bad_recipes_and_runs_give_one_line(
    whole: tuple[Path, dict[str, Any]],
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.toml").write_text("[rl]\ngroup_sise = 3\n")
    (tmp_path / "lost.toml").write_text('[data]\nformat = "atomic"\npath = "/nowhere/x.inter"\n')
    calls = {
        "group_sise": ("run", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "a")),
        "/nowhere/x.inter": ("run", str(tmp_path / "lost.toml"), "--out", str(tmp_path / "b")),
        "--resume": ("run", str(recipe), "--seed", "3", "--out", str(whole[0])),
        "missing.whl": ("fetch", "ml-100k", "--wheel", str(tmp_path / "missing.whl"), "--out", str(tmp_path / "cache")),
    }
    for words, arguments in calls.items():
        assert command_line(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.strip().splitlines()[-1].startswith("recast-train: error: ")
        assert "Traceback" not in error
    assert not any((tmp_path / name).exists() for name in ("a", "b"))


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"RlConfig\.group_size: 1 must be at least 2"):
        RlConfig(group_size=1)
    with pytest.raises(SignalError, match="'gpro' is not registered"):
        RealConfig(methods=("gpro",))
    with pytest.raises(TrainError, match=r"RealConfig\.methods: .* must not repeat"):
        RealConfig(methods=("grpo", "grpo"))
    with pytest.raises(RunError, match=r"results\.json: not readable"):
        read_results(tmp_path)


def test_a_report_needs_the_scores_of_the_test_prompts(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for name in ("manifest.json", "results.json"):
        (tmp_path / name).write_bytes((whole[0] / name).read_bytes())
    with pytest.raises(RunError, match=r"scores\.parquet: not readable .*manifest\.json if the run is complete, then --resume"):
        report(tmp_path)
