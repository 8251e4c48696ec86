"""The theory figure and tables from a run folder written by hand: no torch, no laboratory."""

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from recast_analysis.reports.theory import report
from recast_analysis.terminal import print_report
from recast_sim.runs import RunError, RunWriter


def summary() -> dict[str, Any]:
    shares = {"all_zero": 0.85, "single_hit": 0.13, "multi_hit": 0.02, "all_hit": 0.0}
    return {
        "hit_rate": 0.0054,
        "group_size": 32,
        "beta": [1.235, 227.5],
        "regimes": {"homogeneous": shares, "beta": shares},
        "learnable": [{"group_size": 8, "homogeneous": 0.042, "beta": 0.041}],
        "weights": {
            "grpo": {"weight": 5.24, "per": "rollout", "formula": "E[sqrt(K)]"},
            "recast": {"weight": 185.2, "per": "group", "formula": "1 / p"},
        },
        "rollouts_per_kept_group": {"homogeneous": 201.1, "beta": 213.4},
        "best_group_size": {"homogeneous": 2, "beta": 2},
        "prompt_cost": 0.0,
    }


def theory_run(root: Path, kind: str = "theory", curves: bool = True) -> Path:
    config = {"hit_rate": 0.0054, "group_size": 32, "beta": [1.235, 227.5], "constructors": ["grpo", "recast"]}
    writer = RunWriter.create(root, kind, config, 0)
    rows = [
        {"curve": "weight", "constructor": name, "group_size": 32, "p": p, "value": scale / p}
        for name, scale in (("grpo", 0.5), ("recast", 1.0))
        for p in (1e-4, 1e-2, 0.5)
    ]
    for kind_of_prompt in ("homogeneous", "beta"):
        for curve, values in (("learnable", (0.01, 0.15, 0.9)), ("rollouts_per_kept_group", (186.0, 201.0, 1030.0))):
            rows += [
                {"curve": f"{curve}_{kind_of_prompt}", "constructor": None, "group_size": G, "p": 0.0054, "value": value}
                for G, value in zip((2, 32, 1024), values, strict=True)
            ]
    if curves:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(root / "curves.parquet")
    writer.close(summary=summary())
    return root


def test_the_figure_is_drawn_from_the_folder_alone(tmp_path: Path) -> None:
    root = theory_run(tmp_path / "run")
    figure = Path(*report(root).save_figures(root))
    assert figure == tmp_path / "run" / "figure.png"
    assert figure.stat().st_size > 20_000
    assert figure.with_suffix(".pdf").exists()


def test_tables_keep_brackets_and_name_the_unit(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=165)
    print_report(report(theory_run(tmp_path / "run")), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "| grpo        |  5.24 | rollout | E[sqrt(K)] " in text
    assert "| recast      | 185.2 | group " in text
    assert "all prompts p = 0.0054" in text
    assert "Beta(1.235, 227.5), mean 0.0054" in text
    assert "E[sum of A grad log pi] = w(p) grad p" in text


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"its kind is 'simulation'"):
        report(theory_run(tmp_path / "other", kind="simulation"))
    with pytest.raises(RunError, match=r"holds no curves\.parquet"):
        report(theory_run(tmp_path / "bare", curves=False)).figures()
