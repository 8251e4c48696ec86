"""Prompts and seeds that a paired comparison needs, as far as a log can say.

The comparison: two methods, each trained with S seeds, each evaluated on the same P prompts by one draw a prompt that hits or
misses; the mean difference is judged by `measures.two_way.two_way_interval`. One method has the log's hit rates, the other the
same times 1 + effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from recast_analysis.measures.crossed_means import mean_squares
from recast_analysis.measures.power import POWER, smallest_effect
from recast_analysis.measures.two_way import TwoWayParts
from recast_analysis.planner.hit_rates import Bounded, Estimate, HitRates
from recast_analysis.planner.plan_error import PlanError
from recast_analysis.planner.prompt_hits import PromptHits
from recast_sim.closed_forms.hit_prediction import power_moment

SEEDS = (1, 3, 5, 10, 20)
_MOST = 10**9  # prompts
_SHARED = 0.5  # of the prompts that logs must have in common to be held against each other prompt by prompt


@dataclass(frozen=True)
class Scatter:
    """Standard deviation over seeds of the difference between two methods, relative to the hit rate; where it is from."""

    estimate: Estimate
    source: str


@dataclass(frozen=True)
class StudyRow:
    """What so many seeds need.

    Attributes:
        prompts: with the scatter as it is estimated; None inside where no number is enough. Without a scatter: if seeds did not
            scatter at all.
        at_most_scatter: the relative scatter that so many seeds can bear, with any number of prompts; None for one seed.
    """

    seeds: int
    prompts: Estimate
    at_most_scatter: float | None


@dataclass(frozen=True)
class StudyPlan:
    """A planned comparison; `base` is the hit rate of the weaker method."""

    effect: float
    base: Estimate
    scatter: Scatter | None
    rows: list[StudyRow]


def study(rates: HitRates, effect: float, base: float | None, scatter: Scatter | None) -> StudyPlan | str:
    """The rows for `SEEDS`; or why there are none: no hit, or a hit rate that leaves no room for the effect."""
    rate = Estimate(base, base, base) if base is not None else rates.mean
    if not rate.value:
        return (
            f"No rollout hit: the mean hit rate is at most {rate.high:.2g}, and a relative effect needs the rate itself. Give "
            "a log of more rollouts, or --base."
        )
    if rate.value * (1 + effect) > 1:
        return f"An effect of {100 * effect:g} % lifts a hit rate of {rate.value:.3g} above 1; give less of it, or --base."
    return StudyPlan(effect, rate, scatter, [_row(rates, base, effect, scatter, seeds) for seeds in SEEDS])


def _row(rates: HitRates, base: float | None, effect: float, scatter: Scatter | None, seeds: int) -> StudyRow:
    own = scatter is not None and seeds > 1
    relative = scatter.estimate.value if own and scatter is not None and scatter.estimate.value is not None else 0.0
    found = [prompts_needed(mean, square, effect, relative, seeds) for mean, square in _rates(rates, base)]
    bear = None if seeds == 1 else effect / smallest_effect(1.0, seeds)
    return StudyRow(seeds, Estimate(found[0], min(found), max(found)), bear)


def _rates(rates: HitRates, base: float | None) -> list[tuple[float, float]]:
    """Mean and mean square of hit rates: the best ones first, then the ends of what the log does not reject.

    Prompts needed grow with E[p - p^2] over the squared mean. Of bounds alone, alike prompts are the safe ones.
    """
    if isinstance(rates, Bounded):
        means = [base] if base is not None else [rates.mean.value, max(rates.mean.low, 1e-12), rates.mean.high]
        return [(mean, mean**2) for mean in means if mean is not None]
    mean_N = rates.mean_N if base is None else np.full_like(rates.mean_N, base)
    square_N = power_moment(mean_N, rates.theta_N, 2, 0)
    need_N = (mean_N - square_N) / mean_N**2
    return [(float(mean_N[at]), float(square_N[at])) for at in (0, int(need_N.argmin()), int(need_N.argmax()))]


def parts_of(mean: float, square: float, effect: float, scatter: float) -> TwoWayParts:
    """Variances of a paired difference of two draws at rates p and (1 + effect) p, E[p] = `mean`, E[p^2] = `square`."""
    better = 1 + effect
    rest = max(0.0, mean - square) + max(0.0, better * mean - better**2 * square)
    return TwoWayParts((scatter * mean) ** 2, effect**2 * max(0.0, square - mean**2), rest)


def prompts_needed(mean: float, square: float, effect: float, scatter: float, seeds: int) -> float:
    """Fewest prompts with a power of 80 % at so many seeds; infinite where a thousand million are not enough."""
    parts = parts_of(mean, square, effect, scatter)
    low, high = 1, 2
    while parts.power(effect * mean, seeds, high) < POWER:
        low, high = high, 2 * high
        if high > _MOST:
            return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parts.power(effect * mean, seeds, middle) < POWER else (low, middle)
    return float(high)


def scatter_between(logs: Sequence[PromptHits]) -> Scatter:
    """The scatter from logs of one recipe with other seeds: sqrt(2) times that of a log's mean hit rate, as of two methods
    whose seeds have nothing in common, without the chance of prompts and rollouts; interval by chi2 over the logs.

    Raises:
        PlanError: a log without hits, or logs that do not differ at all.
    """
    R = len(logs)
    mean_R, noise, how = _means(logs)
    if not mean_R.all():
        raise PlanError(
            f"replicate: hit rates {', '.join(f'{mean:.3g}' for mean in mean_R)}; a log without hits has no scatter"
        )
    total = float(mean_R.var(ddof=1))
    if not total:
        raise PlanError(f"replicate: all {R} logs have the same mean hit rate {mean_R[0]:.4g}; are they of one seed?")
    ends = [total * (R - 1) / float(scipy.stats.chi2(R - 1).ppf(level)) for level in (0.975, 0.025)]
    value, low, high = ((2 * max(0.0, square - noise)) ** 0.5 / float(mean_R.mean()) for square in (total, *ends))
    return Scatter(Estimate(value, low, high), f"{R} logs ({how}), as of two methods whose seeds have nothing in common")


def _means(logs: Sequence[PromptHits]) -> tuple[np.ndarray, float, str]:
    """Mean hit rates of the logs, and the variance in one that prompts and rollouts make."""
    shared = set(logs[0].id_P.tolist()).intersection(*(log.id_P.tolist() for log in logs[1:]))
    if len(shared) >= max(2, _SHARED * min(log.prompts for log in logs)):
        rate_RP = np.array([_rates_of(log, sorted(shared)) for log in logs])
        return rate_RP.mean(1), mean_squares(rate_RP)[2] / len(shared), f"{len(shared):,} prompts in all of them"
    rates = [log.hits_P / log.rows_P for log in logs]
    noise = float(np.mean([rate_P.var(ddof=1) / len(rate_P) for rate_P in rates]))
    return np.array([rate_P.mean() for rate_P in rates]), noise, "of other prompts each"


def _rates_of(log: PromptHits, ids: Sequence[int]) -> np.ndarray:
    of = dict(zip(log.id_P.tolist(), (log.hits_P / log.rows_P).tolist(), strict=True))
    return np.array([of[one] for one in ids])
