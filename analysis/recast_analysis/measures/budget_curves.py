"""Budget curves: what a method spends until it reaches another's final score, world by world.

Axes: S seeds (worlds), E evaluations of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from recast_analysis.measures.metric_names import IN_NATS
from recast_analysis.measures.statistics import Interval, mean_interval

AXES = ("rollouts", "actor_tokens", "optimiser_steps", "seconds")
FINAL = 3  # evaluations whose mean is a run's final score
HOLD = 2  # evaluations that a crossing must hold for
_LEAST = 0.01  # share of a budget below which a matched ratio does not tell costs apart


@dataclass(frozen=True)
class Curves:
    """A method's evaluations of one metric over several worlds.

    Attributes:
        seeds: S of them.
        scores_SE: the metric at each evaluation, the first before any training.
        spent: what was spent until each evaluation, (S, E) for each budget axis.
        ends_only: the metric is measured before and after training alone, so that there is no curve between.
    """

    seeds: tuple[int, ...]
    scores_SE: NDArray[np.float64]
    spent: Mapping[str, NDArray[np.float64]]
    ends_only: bool = False

    @classmethod
    def of(cls, frames: Mapping[int, pl.DataFrame], metric: str) -> "Curves":
        """From each seed's evaluations. A run that broke off keeps its last score for the rest of its budget."""
        length = max(len(frame) for frame in frames.values())
        axes = [axis for axis in AXES if axis in next(iter(frames.values())).columns]

        def table(column: str) -> NDArray[np.float64]:
            rows = [frame[column].forward_fill().to_numpy().astype(np.float64) for frame in frames.values()]
            return np.stack([np.pad(row, (0, length - len(row)), mode="edge") for row in rows])

        ends_only = any(bool(frame[metric].null_count()) for frame in frames.values())
        return cls(tuple(frames), table(metric), {axis: table(axis) for axis in axes}, ends_only)

    @property
    def finals_S(self) -> NDArray[np.float64]:
        """Mean of each run's last three evaluations; the last of a metric that only the first and the last one hold."""
        return self.scores_SE[:, -(1 if self.ends_only else FINAL) :].mean(1)

    @property
    def starts_S(self) -> NDArray[np.float64]:
        """Each run's score before training."""
        return self.scores_SE[:, 0]


@dataclass(frozen=True)
class BudgetRatio:
    """What a method spends to reach the baseline's final score, over the baseline's total, over seeds.

    Attributes:
        value, low, high: restricted mean, every seed counting at most as `horizon`, with its t interval (None of one seed): a
            method that never gets there has the horizon.
        median: Kaplan-Meier median over seeds; None where fewer than half of them get there.
        horizon: the least of what the seeds' runs spent in all, over the baseline's total, and at most 1.
        censored: seeds in which the method never got there in its own budget.
        trivial: seeds in which the baseline ended no higher than it began, so that the target was reached before any training
            and the ratio says nothing.
    """

    value: float
    low: float | None
    high: float | None
    median: float | None
    horizon: float
    seeds: int
    censored: list[int]
    trivial: int


def crossing(scores_E: NDArray[np.float64], spent_E: NDArray[np.float64], target: float, hold: int = HOLD) -> float:
    """What is spent when a curve reaches the target and stays there for `hold` evaluations, or to its end; inf if never.

    Linear between evaluations.
    """
    above = scores_E >= target
    for at in np.flatnonzero(above):
        if above[at : at + hold].all():
            if at == 0:
                return float(spent_E[0])
            share = (target - scores_E[at - 1]) / (scores_E[at] - scores_E[at - 1])
            return float(spent_E[at - 1] + min(max(share, 0.0), 1.0) * (spent_E[at] - spent_E[at - 1]))
    return float("inf")


def budget_ratio(methods: Sequence[Curves], baselines: Sequence[Curves], axis: str = "rollouts") -> BudgetRatio:
    """Compare a method with a baseline that was run on the same seeds; one pair of curves a setting, each a stratum."""
    pairs = list(zip(methods, baselines, strict=True))
    ratios = [_ratios(method, baseline, axis) for method, baseline in pairs]
    limits = [method.spent[axis][:, -1] / baseline.spent[axis][:, -1] for method, baseline in pairs]
    horizon = min(1.0, float(np.concatenate(limits).min()))
    mean = mean_interval(*(np.minimum(part, horizon) for part in ratios))
    seeds = [seed for method in methods for seed in method.seeds]
    censored = [seed for seed, ratio in zip(seeds, np.concatenate(ratios), strict=True) if not np.isfinite(ratio)]
    trivial = sum(int((baseline.finals_S <= baseline.starts_S).sum()) for baseline in baselines)
    median = _median(np.concatenate(ratios), np.concatenate(limits))
    return BudgetRatio(mean.value, mean.low, mean.high, median, horizon, len(seeds), censored, trivial)


def gain(metric: str, ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]]) -> Interval:
    """How much better scores are than others of the same worlds, one pair of arrays (S,) a setting; the mean over settings.

    Of a metric in nats the difference; of any other the ratio of means over worlds, minus 1, its error by linearisation (worlds
    in which a score is 0 count like others).

    Raises:
        ValueError: the other scores of a setting are 0 throughout.
    """
    return mean_interval(*(gain_values(metric, mine, other) for mine, other in zip(ours, theirs, strict=True)))


def gain_values(metric: str, ours_S: NDArray[np.float64], theirs_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the worlds of a setting whose mean is the gain, and whose scatter is the gain's, to first order."""
    if metric in IN_NATS:
        return ours_S - theirs_S
    base = theirs_S.mean()
    if base == 0:
        raise ValueError("scores: 0 in every world of the other side; there is no ratio to it")
    ratio = ours_S.mean() / base
    return ratio - 1 + (ours_S - ratio * theirs_S) / base


def _median(ratios: NDArray[np.float64], limits: NDArray[np.float64]) -> float | None:
    """Kaplan-Meier median of ratios that are censored (inf) at their limits."""
    reached = np.isfinite(ratios)
    if not reached.any():
        return None
    found = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=ratios[reached], right=limits[~reached])).sf
    below = found.quantiles[found.probabilities <= 0.5]
    return float(below[0]) if len(below) else None


def _ratios(method: Curves, baseline: Curves, axis: str) -> NDArray[np.float64]:
    _same_seeds(method, baseline)
    columns = (method.scores_SE, method.spent[axis], baseline.finals_S)
    spent = [crossing(scores, spent, target) for scores, spent, target in zip(*columns, strict=True)]
    return np.array(spent) / baseline.spent[axis][:, -1]


def matched_log_ratio(method: Curves, other: Curves, axis: str = "optimiser_steps") -> NDArray[np.float64]:
    """log10 of the ratio of what both spend to the lower of their two final scores, for each seed.

    Symmetric and never censored: below 0 the method is cheaper, by 0.5 three times. Costs under 1 % of a budget count as 1 %,
    so the figure lies in -2 .. 2. Where the lower final score is no gain over the start there is nothing to reach: the figure
    is then -2 or 2 for the one that gains, and 0 where neither does.
    """
    _same_seeds(method, other)
    targets = np.minimum(method.finals_S, other.finals_S)

    def cost(curves: Curves) -> NDArray[np.float64]:
        totals = curves.spent[axis][:, -1]
        spent = [crossing(s, x, t) for s, x, t in zip(curves.scores_SE, curves.spent[axis], targets, strict=True)]
        return np.clip(np.minimum(spent, totals), _LEAST * totals, None)  # its own final score is reached by the end

    gains, others = method.finals_S > method.starts_S, other.finals_S > other.starts_S
    only_one = (others.astype(float) - gains) * -np.log10(_LEAST)
    return np.where(gains & others, np.log10(cost(method) / cost(other)), only_one)


def _same_seeds(method: Curves, baseline: Curves) -> None:
    if method.seeds != baseline.seeds:
        raise ValueError(f"seeds: {method.seeds} and {baseline.seeds} differ; compare methods on the same worlds")
