"""Does the laboratory predict the real run? Changes from the starting point side by side, method by method.

The simulated side is a `recast-sim budget` run whose settings carry the labels of the study's starting points, each calibrated
to the regime that was measured there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.budget_curves import gain
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.study_changes import SHARES, measure_study
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError

PAIRS = {"pass_at_1_greedy": "pass_at_1_greedy", "ndcg@10": "recall_at_k", "pass_at_1_sampled": "pass_at_1_sampled"}
_EXACT = 8  # orders of so many methods are all tried; of more, a random part
_ORDERS = 10_000


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
    curves = {name: lab.curves(label, name, metric) for name in methods}
    rows = {}
    for name in methods:
        change = real[name]["versus_start"]
        starts_S = curves[name].starts_S
        rows[name] = {
            "real": {key: change[key] for key in ("value", "low", "high")} if change else None,
            "simulated": _simulated(metric, curves[name].finals_S, starts_S),
        }
    both = {
        name: (row["real"]["value"], row["simulated"]["value"])
        for name, row in rows.items()
        if row["real"] and row["simulated"]
    }
    distinct = _without_twins(both)
    ranks = {"spearman": None, "p": None, "twins": [name for name in both if name not in distinct]}
    ranks |= _rank_correlation(list(distinct.values()))
    signs = None
    if "grpo" in methods:
        against = {
            name: (real[name]["versus_grpo"], _simulated(metric, curves[name].finals_S, curves["grpo"].finals_S))
            for name in distinct
            if name != "grpo"
        }
        signs = _signs(list(against.values()))
    return {"methods": rows, **ranks, "versus_grpo": signs}


def _simulated(metric: str, ours_S: NDArray[np.float64], other_S: NDArray[np.float64]) -> dict[str, Any] | None:
    """Relative change over the worlds; None where all of them are at 0 before it."""
    if (other_S == 0).all():
        return None
    interval = gain(metric, [ours_S], [other_S])
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _without_twins(both: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Methods that are the same update under another name change alike in both worlds; the first of them stays."""
    kept: dict[str, tuple[float, float]] = {}
    for name, pair in both.items():
        if not any(np.allclose(pair, other, rtol=1e-9, atol=1e-12) for other in kept.values()):
            kept[name] = pair
    return kept


def _rank_correlation(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Spearman's, with its two-sided p over permutations; nothing for fewer than three pairs, or where one side is constant."""
    if len(pairs) < 3:
        return {}
    ours, theirs = np.array(pairs).T
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return {}

    def statistic(shuffled: NDArray[np.float64]) -> float:
        found: Any = scipy.stats.spearmanr(shuffled, theirs)
        return float(found.statistic)

    orders = np.inf if len(pairs) <= _EXACT else _ORDERS
    test: Any = scipy.stats.permutation_test(
        (ours,), statistic, permutation_type="pairings", n_resamples=orders, rng=np.random.default_rng(0)
    )
    return {"spearman": float(test.statistic), "p": float(test.pvalue)}


def _signs(against_grpo: Sequence[tuple[dict[str, Any] | None, ...]]) -> dict[str, int]:
    """How many methods lie on the same side of grpo in both worlds, of those that both tell from it."""
    sides = [tuple(map(_sign, pair)) for pair in against_grpo]
    told = [pair for pair in sides if all(pair)]
    return {"agree": sum(ours == theirs for ours, theirs in told), "of": len(told)}


def _sign(change: dict[str, Any] | None) -> int:
    """1 or -1 where the interval leaves 0 out, else 0."""
    if not change or change["low"] is None:
        return 0
    return int(change["low"] > 0) - int(change["high"] < 0)


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
    rank = "undefined" if part["spearman"] is None else f"{part['spearman']:+.2f} (permutation p {part['p']:.2g})"
    rank += f", without {', '.join(part['twins'])}, the same as another" if part["twins"] else ""
    signs = part["versus_grpo"]
    words = f"; sign against grpo equal for {signs['agree']} of {signs['of']} methods that both tell apart" if signs else ""
    return f"{where}: Spearman's rank correlation over methods {rank}{words}"


def _percent(row: dict[str, Any] | None) -> str:
    return interval_text(row, percent=True) if row else ""
