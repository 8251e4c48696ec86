"""Does the laboratory predict the real run? Changes from the starting point side by side, method by method.

The simulated side is a `recast-sim budget` run whose settings carry the labels of the study's starting points, each calibrated
to the regime that was measured there.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy

from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.budget_curves import Curves, gain
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.study_changes import SHARES, measure_study
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError

PAIRS = {"pass_at_1_sampled": "pass_at_1_sampled", "pass_at_1_greedy": "pass_at_1_greedy", "ndcg@10": "recall_at_k"}


def report(real: Path, simulated: Path) -> Report:
    """For each starting point and metric: both changes of each method, their rank correlation, and the signs against grpo.

    Raises:
        RunError: a run is not finished, the two share no setting or fewer than three methods, or a metric was not simulated.
    """
    summary = _summary(real, simulated)
    return Report(summary, [part for label, setting in summary["settings"].items() for part in _shown(label, setting)])


def _summary(real: Path, simulated: Path) -> dict[str, Any]:
    study, lab = measure_study(real), Comparison.read(simulated / "methods")
    labels = [label for label in study["settings"] if label in lab.settings]
    methods = [name for name in study["methods"] if name in lab.methods]
    if not labels or len(methods) < 3:
        raise RunError(f"{simulated}: settings {lab.settings} and methods {lab.methods} do not match those of {real}")
    if missing := [metric for metric in PAIRS.values() if metric not in lab.metrics]:
        raise RunError(f"{simulated}: has no {', '.join(missing)}; run it with these among protocol.metrics")
    found = {
        label: {
            "regime": {"real": study["settings"][label]["regime"], "simulated": _regime(lab, label)},
            "metrics": {
                ours: _metric(study["settings"][label]["metrics"][ours], lab, label, theirs, methods)
                for ours, theirs in PAIRS.items()
            },
        }
        for label in labels
    }
    return {"real": str(real), "simulated": str(simulated), "settings": found}


def _regime(lab: Comparison, label: str) -> dict[str, float]:
    worlds = lab.reported_worlds.filter(pl.col("setting") == label)
    return {name: float(worlds[name].to_numpy().mean()) for name in SHARES}


def _metric(real: dict[str, Any], lab: Comparison, label: str, metric: str, methods: list[str]) -> dict[str, Any]:
    rows = {}
    for name in methods:
        change = real[name]["versus_start"]
        rows[name] = {
            "real": {key: change[key] for key in ("value", "low", "high")} if change else None,
            "simulated": _simulated(lab.curves(label, name, metric), metric),
        }
    both = [(row["real"]["value"], row["simulated"]["value"]) for row in rows.values() if row["real"] and row["simulated"]]
    return {"methods": rows, "spearman": _spearman(both), "versus_grpo": _signs(rows)}


def _simulated(curves: Curves, metric: str) -> dict[str, Any] | None:
    """Relative change over the worlds; None where all of them start at 0."""
    if (curves.starts_S == 0).all():
        return None
    interval = gain(metric, [curves.finals_S], [curves.starts_S])
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _spearman(pairs: list[tuple[float, float]]) -> float | None:
    """None for fewer than three pairs, or where one side does not vary."""
    if len(pairs) < 3:
        return None
    ours, theirs = np.array(pairs).T
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    found: Any = scipy.stats.spearmanr(ours, theirs)
    return float(found.statistic)


def _signs(rows: dict[str, Any]) -> dict[str, int] | None:
    """Methods whose difference to grpo has the same sign in both; only those that both worlds can tell from grpo count."""
    if "grpo" not in rows:
        return None
    agree = count = 0
    for name, row in rows.items():
        sides = [_sign(row[side], rows["grpo"][side]) for side in ("real", "simulated")]
        if name != "grpo" and all(sides):
            count, agree = count + 1, agree + (sides[0] == sides[1])
    return {"agree": agree, "of": count}


def _sign(ours: dict[str, Any] | None, grpo: dict[str, Any] | None) -> int:
    """1 or -1 where the two intervals do not overlap, else 0."""
    if not ours or not grpo or ours["low"] is None or grpo["low"] is None:
        return 0
    return int(ours["low"] > grpo["high"]) - int(ours["high"] < grpo["low"])


def _shown(label: str, setting: dict[str, Any]) -> list[Table | str]:
    """A table of changes, then the rank correlation and signs of each metric."""
    metrics = setting["metrics"]
    rows = []
    for name in next(iter(metrics.values()))["methods"]:
        found = [part["methods"][name] for part in metrics.values()]
        rows.append((name, *(_percent(row[side]) for row in found for side in ("real", "simulated"))))
    real, lab = (" / ".join(f"{100 * setting['regime'][side][k]:.1f}" for k in SHARES) for side in ("real", "simulated"))
    header = [column for metric in metrics for column in (f"{metric}, real", f"{PAIRS[metric]}, simulated")]
    table = Table(f"{label}: regime {real} real, {lab} simulated", ("change from the start", *header), rows)
    return [table, *(_correlation(f"{label}, {metric}", part) for metric, part in metrics.items())]


def _correlation(where: str, part: dict[str, Any]) -> str:
    rank = "undefined" if part["spearman"] is None else f"{part['spearman']:+.2f}"
    signs = part["versus_grpo"]
    words = f"; sign against grpo equal for {signs['agree']} of {signs['of']} methods that both tell apart" if signs else ""
    return f"{where}: Spearman's rank correlation over methods {rank}{words}"


def _percent(row: dict[str, Any] | None) -> str:
    return interval_text(row, percent=True) if row else ""
