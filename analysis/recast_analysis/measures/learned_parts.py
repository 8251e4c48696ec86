"""What each method of a comparison learned, and what a thermometer could have bought: all at the rate tuned for one metric.

Rows "base_temperature" and "base_level_weights" train nothing: they are the base policy at the joint temperature, and at the
numbers for its levels, that fit validation prompts best (`recast_sim.world.learning`). Axes: S seeds (worlds) of a setting.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recast_analysis.measures.budget_curves import FINAL, gain
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.metric_names import GREEDY, RECALL, SAMPLED
from recast_analysis.measures.statistics import Interval, mean_interval

BASES = ("base", "base_temperature", "base_level_weights")
Values = list[NDArray[np.float64]]  # (S,) a setting


def learning_rows(found: Comparison, metric: str, settings: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Figures of each method, with t intervals over worlds, after the three of the base policy.

    `greedy`, `recall`: relative change from the base policy; `greedy_levels`, `recall_levels`: the same with both policies at
    their own best numbers for the levels, a gain that no such number buys. `calibrated`: change of the calibrated
    log-likelihood, nats. `entropy`: mean, nats. `sampled`: change of sampled Pass@1 in units of the base policy's, and its
    parts `sharpened` and `learned`.

    Args:
        metric: every method at the rate tuned for it.
        settings: means over these (default all).
    """
    settings = settings or found.settings
    runs = {m: [list(found.frames(setting, m, metric).values()) for setting in settings] for m in found.methods}
    base = _Columns([[frame[:1] for frame in frames] for frames in next(iter(runs.values()))])
    rows = {name: _base_row(base, name) for name in BASES}
    return rows | {name: _row(_Columns(frames), base) for name, frames in runs.items()}


class _Columns:
    """Columns of the runs of a method by setting: at the end of training, or the mean of its last evaluations."""

    def __init__(self, frames: Sequence[Sequence[pl.DataFrame]]) -> None:
        self.frames = frames

    def last(self, column: str) -> Values:
        return [np.array([frame[column][-1] for frame in part], dtype=np.float64) for part in self.frames]

    def final(self, column: str) -> Values:
        return [np.array([frame[column][-FINAL:].to_numpy().mean() for frame in part]) for part in self.frames]


def _base_row(base: _Columns, name: str) -> dict[str, Any]:
    ending = {"base": "", "base_temperature": "_fitted", "base_level_weights": "_levels"}[name]
    ranked = "_levels" if name == "base_level_weights" else ""
    sampled = _share(base.last(SAMPLED + ending), base.last(SAMPLED), base)
    entropy = base.last("entropy_levels" if ranked else "entropy") if name != "base_temperature" else None
    return {
        "greedy": asdict(gain(GREEDY, base.last(GREEDY + ranked), base.last(GREEDY))),
        "recall": asdict(gain(RECALL, base.last(RECALL + ranked), base.last(RECALL))),
        "greedy_levels": None,
        "recall_levels": None,
        "calibrated": None,
        "entropy": None if entropy is None else asdict(mean_interval(*entropy)),
        "sampled": asdict(sampled),
        "sharpened": asdict(sampled) if name == "base_temperature" else None,
        "learned": None,
    }


def _row(own: _Columns, base: _Columns) -> dict[str, Any]:
    def relative(column: str, of: Callable[[str], Values]) -> dict[str, Any]:
        return asdict(gain(column.removesuffix("_levels"), of(column), base.last(column)))

    calibrated = gain("calibrated_log_likelihood", *(part.last("calibrated_log_likelihood") for part in (own, base)))
    nothing = [np.zeros(len(part)) for part in base.last(SAMPLED)]
    return {
        "greedy": relative(GREEDY, own.final),
        "recall": relative(RECALL, own.final),
        "greedy_levels": relative(f"{GREEDY}_levels", own.last),
        "recall_levels": relative(f"{RECALL}_levels", own.last),
        "calibrated": asdict(calibrated),
        "entropy": asdict(mean_interval(*own.last("entropy"))),
        "sampled": asdict(_share(own.last(SAMPLED), base.last(SAMPLED), base)),
        "sharpened": asdict(_share(own.last("sharpened"), nothing, base)),
        "learned": asdict(_share(own.last("learned"), nothing, base)),
    }


def _share(ours: Values, theirs: Values, base: _Columns) -> Interval:
    """Mean difference in units of the base policy's sampled Pass@1 in the same world."""
    columns = zip(ours, theirs, base.last(SAMPLED), strict=True)
    return mean_interval(*((mine - other) / unit for mine, other, unit in columns))
