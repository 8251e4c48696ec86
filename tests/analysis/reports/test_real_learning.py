"""What a real run's report says on learning and sharpening, against its own tables."""

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from recast_analysis.measures.real_learning import learning_changes, of_seeds
from recast_analysis.reports.real import run
from recast_analysis.terminal import print_report


def test_parts_add_up_and_means_are_those_over_prompts(run_folders: dict[str, Path]) -> None:
    report = run.report(run_folders["real"])
    rows, table = report.summary["learning"], pl.read_parquet(run_folders["real"] / "learning.parquet")
    assert list(rows) == ["start", "grpo", "recast", "sft"]
    means = {name: table.filter(model=name).drop("model", "user").mean().row(0, named=True) for name in rows}
    for name, row in rows.items():
        for key in ("sharpened", "learned"):
            assert row[key]["value"] == pytest.approx(means[name][key], abs=1e-12)
        change = means[name]["pass_at_1_sampled"] - means["start"]["pass_at_1_sampled"]
        assert row["pass_at_1_sampled"]["value"] == pytest.approx(change, abs=1e-12)
        assert row["sharpened"]["value"] + row["learned"]["value"] == pytest.approx(change, abs=1e-12)
        assert row["entropy"] > 0
        assert row["learned"]["low"] <= row["learned"]["value"] <= row["learned"]["high"]
    assert rows["start"]["learned"]["value"] == pytest.approx(0, abs=1e-4)
    console = Console(width=300, file=io.StringIO(), record=True)
    print_report(report, console)
    assert "learning or sharpening" in console.export_text()


def test_seeds_are_the_unit_of_a_study() -> None:
    figures = ("pass_at_1_greedy_levels", "hr@10_levels", "calibrated_log_likelihood", "pass_at_1_sampled")
    rows = [
        {"setting": "one", "seed": seed, "method": method, "entropy": 2.0, "temperature": 0.5}
        | dict.fromkeys(figures, 0.1 * seed + (0.2 + 0.01 * seed) * (method == "grpo"))
        | {"sharpened": 0.05 * (method == "grpo"), "learned": 0.15 * (method == "grpo")}
        for seed in (1, 2, 3)
        for method in ("start", "grpo")
    ]
    found = learning_changes(of_seeds(pl.DataFrame(rows), ("start", "grpo")))["grpo"]
    for name in figures:
        assert found[name]["value"] == pytest.approx(0.22)
        assert found[name]["low"] < 0.21 < found[name]["high"]
    assert found["sharpened"]["value"] == pytest.approx(0.05)
    assert (found["entropy"], found["temperature"]) == (2.0, 0.5)
