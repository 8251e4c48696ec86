"""The distribution of hit rates over prompts: a Beta with all that the hits do not reject, or bounds where none can be fitted.

Axis letters: P prompts, N points (mean and theta = 1 / (a + b)) that the hits do not reject, the best one first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import stdtrit

from recast_analysis.planner.prompt_hits import PromptHits
from recast_sim.closed_forms.hit_counts import Likelihood, check_counts, goodness_of_fit, maximise
from recast_sim.closed_forms.hit_prediction import flat_shares, likely_points

Floats = NDArray[np.float64]
FEWEST = 20  # prompts that a Beta is fitted to
_BOTH = 0.025  # error of each of two bounds that hold together at 95 %


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; of bounds alone the value is None, and an open end is infinite."""

    value: float | None
    low: float
    high: float

    @classmethod
    def over(cls, value_N: Floats) -> "Estimate":
        """The first of the points, and the range of all."""
        return cls(float(value_N[0]), float(value_N.min()), float(value_N.max()))

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """Of a rising or falling function of the figure."""
        ends = sorted((function(self.low), function(self.high)))
        return Estimate(None if self.value is None else function(self.value), *ends)


@dataclass(frozen=True)
class Fitted:
    """A Beta of the prompts' hit rates by maximum likelihood, as `fit_hit_counts` has it, and all that the hits do not reject.

    Attributes:
        mean_N, theta_N: of the best Beta, then of the others.
        p_value: of Pearson's chi-square over hit counts; None where there are too few to test.
    """

    mean_N: Floats
    theta_N: Floats
    p_value: float | None

    @property
    def shape(self) -> tuple[float, float]:
        """a and b of the best Beta; infinite where prompts cannot be told apart."""
        mean, theta = float(self.mean_N[0]), float(self.theta_N[0])
        return (mean / theta, (1 - mean) / theta) if theta else (np.inf, np.inf)

    def estimate(self, of_points: Callable[[Floats, Floats], Floats]) -> Estimate:
        """A figure of mean and theta, with its profile-likelihood interval: its range over all points."""
        return Estimate.over(of_points(self.mean_N, self.theta_N))

    def flat(self, group_size: int) -> tuple[Estimate, Estimate, Estimate]:
        """Shares of groups without a hit, of hits alone, and of those with a hit and a miss."""
        zero_N, full_N = (share_N1[:, 0] for share_N1 in flat_shares(self.mean_N, self.theta_N, [group_size]))
        return Estimate.over(zero_N), Estimate.over(full_N), Estimate.over(np.maximum(1 - zero_N - full_N, 0.0))

    @property
    def mean(self) -> Estimate:
        return Estimate.over(self.mean_N)


@dataclass(frozen=True)
class Bounded:
    """What holds for any distribution of hit rates, by Clopper and Pearson over prompts (0 of P: the rule of three, 3 / P).

    Attributes:
        reason: why no Beta was fitted.
        size: rollouts of a prompt that the shares are of.
        zero, full: shares of prompts whose first `size` rollouts have no hit, or nothing else.
        mean: mean hit rate.
    """

    reason: str
    size: int
    zero: Estimate
    full: Estimate
    mean: Estimate

    def flat(self, group_size: int) -> tuple[Estimate, Estimate, Estimate]:
        """As `Fitted.flat`. Shares fall with G, and by Jensen E[q^G] >= E[q^n]^(G / n) where G > n."""
        zero, full = (_at(share, self.size, group_size) for share in (self.zero, self.full))
        return zero, full, Estimate(None, max(0.0, 1 - zero.high - full.high), max(0.0, 1 - zero.low - full.low))


HitRates = Fitted | Bounded


def hit_rates(log: PromptHits) -> HitRates:
    """The fit, or bounds where the hits cannot carry one."""
    if log.prompts < FEWEST:
        return _bounded(log, f"{log.prompts} prompts are too few to tell their hit rates' distribution ({FEWEST} and more do)")
    try:
        counts = check_counts(log.hits_P, log.rows_P)
    except ValueError as error:
        return _bounded(log, str(error).partition(": ")[2])
    likelihood = Likelihood.of(*counts)
    best = maximise(likelihood)
    return Fitted(*likely_points(*best, likelihood), goodness_of_fit(*counts, *best)[2])


def counted(log: PromptHits, group_size: int) -> tuple[Estimate, Estimate] | None:
    """All-zero and learnable shares at a G that the prompts' own rollouts hold, without any model: means over prompts of the
    chances that G of their rollouts have no hit, or a hit and a miss; 95 % t intervals, by Clopper and Pearson of few prompts
    or equal ones. None for fewer than two such prompts."""
    enough = log.rows_P >= group_size
    if enough.sum() < 2:
        return None
    zero_P, full_P = _flat_draws(log.hits_P[enough], log.rows_P[enough], group_size)
    return _mean(zero_P), _mean(1 - zero_P - full_P)


def clopper_pearson(hits: float, of: int, error: float = 0.05) -> tuple[float, float]:
    """Exact two-sided interval of a share; a sum of shares that is no whole number is rounded away from the middle."""
    low, high = int(np.floor(hits + 1e-9)), int(np.ceil(hits - 1e-9))
    beta = scipy.stats.beta
    below = 0.0 if low == 0 else float(beta.ppf(error / 2, low, of - low + 1))
    above = 1.0 if high == of else float(beta.ppf(1 - error / 2, high + 1, of - high))
    return below, above


def _bounded(log: PromptHits, reason: str) -> Bounded:
    size = int(np.median(log.rows_P))
    enough = log.rows_P >= size
    shares = _flat_draws(log.hits_P[enough], log.rows_P[enough], size)
    zero, full = (Estimate(None, *clopper_pearson(float(share_P.sum()), int(enough.sum()), _BOTH)) for share_P in shares)
    mean = clopper_pearson(float((log.hits_P / log.rows_P).sum()), log.prompts)
    return Bounded(reason, size, zero, full, Estimate(float(log.hits_P.sum() / log.rows_P.sum()), *mean))


def _flat_draws(hits_P: NDArray[np.int64], rows_P: NDArray[np.int64], size: int) -> tuple[Floats, Floats]:
    """The chance that `size` of a prompt's rollouts have no hit, and no miss."""
    law = scipy.stats.hypergeom
    return law.pmf(0, rows_P, hits_P, size), law.pmf(0, rows_P, rows_P - hits_P, size)


def _at(share: Estimate, size: int, group_size: int) -> Estimate:
    low, high = share.low ** max(1.0, group_size / size), share.high ** min(1.0, group_size / size)
    return Estimate(None, low, high)


def _mean(value_P: Floats) -> Estimate:
    P, mean, spread = len(value_P), float(value_P.mean()), float(value_P.std(ddof=1))
    if P < FEWEST or spread == 0:
        return Estimate(mean, *clopper_pearson(float(value_P.sum()), P))
    reach = float(stdtrit(P - 1, 0.975)) * spread / P**0.5
    return Estimate(mean, max(0.0, mean - reach), min(1.0, mean + reach))
