"""The claims that a simulator can speak to (1 to 4 and 9 to 12) from a finished `recast-sim claims` folder.

A criterion is fixed for each claim before anything is run. Where it is met in every row of a claim the claim holds; where it is
met in some rows, those say "holds where" and their setting says where.
"""

from pathlib import Path

import numpy as np

from recast_analysis.claims.curves import budget_row, dynamics, gain_row, repair_row, scale_row, stability, variance_row
from recast_analysis.claims.measurement import Row, interval_words, judged, over_seeds, with_where
from recast_analysis.claims.paper import ALL_ZERO, NEAR
from recast_analysis.measures.budget_curves import gain
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.metric_names import GREEDY
from recast_analysis.measures.trajectories import Trajectory, by_method, comparison_trajectories
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table

REGIMES = "85 % all-zero, 13 % single-hit, 2 % multi-hit"


def report(root: Path) -> Report:
    """A line a measurement. The summary's `claims` are objects: claim, paper, ours, low, high, seeds, setting, metric, verdict.

    Raises:
        RunError: the sweep is not finished.
    """
    found = with_where(claims_rows(root))
    rows = [
        (str(row["claim"]), row["paper"], interval_words(row), *(row[k] for k in ("setting", "metric", "verdict")))
        for row in found
    ]
    title = "claims of arXiv 2604.22169 in simulation; 95 % t intervals over worlds"
    header = ("claim", "paper", "ours", "setting", "metric", "verdict")
    return Report({"claims": found}, [Table(title, header, rows, words=("paper", "setting", "verdict"))])


def claims_rows(root: Path) -> list[Row]:
    """The measurements, each judged by itself. Raises RunError: the sweep is not finished."""
    found, gradients = Comparison.read(root / "methods"), read_table(root / "gradients.parquet", RunError)
    rows = [_regime(found, setting) for setting in found.settings]
    for setting in found.settings:
        for metric in found.metrics:
            recast, grpo = (found.curves(setting, name, metric) for name in ("recast", "grpo"))
            rows += [row_of(recast, grpo, f"{setting} base", metric) for row_of in (gain_row, budget_row)]
        rows += stability(*_pair(found, setting), f"{setting} base")
        noise = gradients.filter(setting=setting).pivot(on="constructor", index="seed", values="variance").drop_nulls()
        recast, grpo = (noise[name].to_numpy() for name in ("recast", "grpo"))
        rows.append(variance_row(recast, grpo, gradients["groups_per_step"][0], f"{setting} base"))
    if (root / "passes").exists():
        passes = Comparison.read(root / "passes")
        for setting in passes.settings:
            rows += dynamics(*_pair(passes, setting), setting)
    if (root / "ladder").exists():
        ladder = Comparison.read(root / "ladder")
        rows += [_scale(ladder, metric) for metric in ladder.metrics]
        rows += [_repair_alone(ladder, policy, metric) for metric in ladder.metrics for policy in ladder.settings]
    return rows


def _regime(found: Comparison, setting: str) -> Row:
    share = over_seeds(found.reported_worlds.filter(setting=setting)["all_zero"].to_numpy())
    words = f"{setting} base: all-zero share at G = 32; imposed by calibration on another world, not evidence"
    return judged(1, REGIMES, share, words, lambda i: abs(i.value - ALL_ZERO) < NEAR)


def _scale(ladder: Comparison, metric: str) -> Row:
    pairs = [[ladder.curves(setting, name, metric).finals_S for name in ("recast", "grpo")] for setting in ladder.settings]
    return scale_row(np.stack([np.log(recast / grpo) for recast, grpo in pairs]), ladder.settings, "weak base", metric)


def _repair_alone(found: Comparison, setting: str, metric: str) -> Row:
    repair, grpo = (found.curves(setting, name, metric) for name in ("repair_only", "grpo"))
    return repair_row(gain(metric, [repair.finals_S], [grpo.finals_S]), f"policy {setting}, weak base", metric)


def _pair(found: Comparison, setting: str) -> tuple[list[Trajectory], list[Trajectory]]:
    """Runs of recast and of grpo at the rates tuned for greedy Pass@1."""
    runs = by_method(run for run in comparison_trajectories(found, GREEDY) if run.setting == setting)
    return runs["recast"], runs["grpo"]
