"""Budget curves: how many generated rollouts a method needs to reach the baseline's final score."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.statistics import Interval, bootstrap, median

_FINAL_EVALUATIONS = 3


@dataclass(frozen=True)
class BudgetRatio:
    """Median over seeds of rollouts to the baseline's final score as a fraction of the baseline's total.

    A seed is censored where the method never got there in its own budget; `median`, `low` and `high` are None where they fall
    on censored seeds (that is, above 1).
    """

    median: float | None
    low: float | None
    high: float | None
    seeds: int
    censored: list[int]


def final_score(evals: pl.DataFrame, metric: str) -> float:
    """Mean of the last three evaluations."""
    return float(evals[metric].tail(_FINAL_EVALUATIONS).to_numpy().mean())


def rollouts_to_reach(evals: pl.DataFrame, metric: str, target: float) -> float:
    """Generated rollouts at which the metric first reaches the target, by linear interpolation; inf where it never does."""
    scores, rollouts = evals[metric].to_numpy(), evals["rollouts"].to_numpy().astype(float)
    reached = np.flatnonzero(scores >= target)
    if not len(reached):
        return float("inf")
    at = reached[0]
    if at == 0:
        return float(rollouts[0])
    share = (target - scores[at - 1]) / (scores[at] - scores[at - 1])
    return float(rollouts[at - 1] + share * (rollouts[at] - rollouts[at - 1]))


def budget_ratio(
    method: Mapping[int, pl.DataFrame], baseline: Mapping[int, pl.DataFrame], metric: str = "pass_at_1_sampled"
) -> BudgetRatio:
    """Compare a method with the baseline, world by world; both map a seed to its evaluations."""
    ratios = {
        seed: rollouts_to_reach(method[seed], metric, final_score(evals, metric)) / float(evals["rollouts"][-1])
        for seed, evals in baseline.items()
    }
    interval = bootstrap(list(ratios.values()), median)
    censored = [seed for seed, ratio in ratios.items() if not np.isfinite(ratio)]
    return BudgetRatio(*_finite(interval), seeds=len(ratios), censored=censored)


def _finite(interval: Interval) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in (interval.value, interval.low, interval.high)]
