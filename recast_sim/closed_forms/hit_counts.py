"""Beta-binomial fit to observed hit counts: how the hit rates of prompts vary, and what other group sizes would show.

K is the hits of a group, n its size; sizes may differ between groups. numpy and scipy only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import chdtri

from recast_sim.closed_forms.iid_groups import Array, beta_regime, check_group_size, regime_given_hit_rates

Bounds = tuple[float, float]
PROFILE_DROP = float(chdtri(1, 0.05)) / 2  # log-likelihood that a 95 % profile interval may lose
LOG_THETA = (-23.0, 9.0)  # range of log 1 / (a + b) that is searched; below it the counts are binomial
_STEPS = 15  # of growing size towards an interval's end
_EXPECTED = 5.0  # of a bin of the goodness-of-fit check


@dataclass(frozen=True)
class HitCountFit:
    """Maximum-likelihood Beta(a, b) of the prompts' hit rates, from hit counts.

    Where the counts vary no more than binomial ones, the likelihood rises with a and b for ever: then `a` and `b` are inf,
    `binomial_limit` is true, and every prompt has the hit rate `mean`.

    Attributes:
        a, b: shape of the Beta; inf at the binomial limit.
        a_interval, b_interval, mean_interval: 95 % profile-likelihood intervals; an upper end is inf where the counts do not
            exclude the binomial limit.
        mean: the fitted mean hit rate a / (a + b).
        log_likelihood: of the counts, binomial coefficients included.
        gof_statistic: Pearson's chi-square over hit counts, bins pooled to an expected 5 or more.
        dof: bins - 1 - fitted parameters (2, or 1 at the binomial limit); 0 where there are too few bins to test.
        p_value: of the statistic; None where dof is 0 and no bootstrap was asked for.
        groups: number of groups.
    """

    a: float
    b: float
    a_interval: Bounds
    b_interval: Bounds
    mean: float
    mean_interval: Bounds
    log_likelihood: float
    gof_statistic: float
    dof: int
    p_value: float | None
    groups: int

    @property
    def binomial_limit(self) -> bool:
        return bool(np.isinf(self.a))

    @property
    def theta(self) -> float:
        """1 / (a + b); 0 at the binomial limit."""
        return 0.0 if self.binomial_limit else 1 / (self.a + self.b)

    def hits_pmf(self, group_size: int) -> Array:
        """Chance of K = 0..G hits in a group of another size, (G + 1,)."""
        K = np.arange(check_group_size(group_size) + 1)
        return np.exp(_logpmf(K, np.full_like(K, group_size), self.mean, self.theta))

    def regime(self, group_size: int) -> Array:
        """Predicted shares (all_zero, single_hit, multi_hit, all_hit) of groups of another size."""
        if self.binomial_limit:
            return regime_given_hit_rates(self.mean, group_size)
        return beta_regime(self.a, self.b, group_size)


def fit_hit_counts(
    hits: ArrayLike, group_size: ArrayLike, bootstrap: int = 0, rng: np.random.Generator | None = None
) -> HitCountFit:
    """Fit a Beta-binomial to hit counts by maximum likelihood (Griffiths 1973, Biometrics 29), and check the fit.

    Args:
        hits: (groups,) whole numbers K in [0, n].
        group_size: n of all groups, or (groups,) whole numbers of 1 or more.
        bootstrap: samples of a parametric bootstrap for the p-value; 0 takes it from chi2(dof).
        rng: generator of the bootstrap.

    Raises:
        ValueError: not counts, no group, no hit at all, nothing but hits, or no two groups that differ.
    """
    hits, sizes = check_counts(hits, group_size)
    if bootstrap and rng is None:
        raise ValueError("rng: missing; a bootstrap needs an explicit numpy Generator")
    likelihood = Likelihood.of(hits, sizes)
    mean, theta = maximise(likelihood)
    statistic, dof, p_value = goodness_of_fit(hits, sizes, mean, theta)
    if bootstrap and rng is not None:
        p_value = _bootstrap(sizes, mean, theta, statistic, bootstrap, rng)
    top = likelihood(mean, theta)
    return HitCountFit(
        a=mean / theta if theta else np.inf,
        b=(1 - mean) / theta if theta else np.inf,
        a_interval=_shape_interval(likelihood, mean, theta, top),
        b_interval=_shape_interval(likelihood.mirrored(), 1 - mean, theta, top),
        mean=mean,
        mean_interval=_mean_interval(likelihood, mean, top),
        log_likelihood=float(_logpmf(hits, sizes, mean, theta).sum()),
        gof_statistic=statistic,
        dof=dof,
        p_value=p_value,
        groups=len(hits),
    )


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of hit counts, without binomial coefficients, in mean hit rate and theta = 1 / (a + b); exact down to 0.

    sum of log(mean + i theta) over each group's i < K, of log(1 - mean + i theta) over i < n - K, minus log(1 + i theta)
    over i < n: so only the numbers of groups with more than i hits, misses and rollouts matter.
    """

    hits_I: Array
    misses_I: Array
    sizes_I: Array

    @classmethod
    def of(cls, hits: NDArray[np.int64], sizes: NDArray[np.int64]) -> "Likelihood":
        return cls(*(_groups_above(counts, int(sizes.max())) for counts in (hits, sizes - hits, sizes)))

    def __call__(self, mean: float, theta: float) -> float:
        return float(self.of_points(np.array([mean]), np.array([theta]))[0])

    def of_points(self, mean_N: Array, theta_N: Array) -> Array:
        """The likelihood at N pairs of mean and theta, (N,)."""
        mean, step = mean_N[:, None], theta_N[:, None] * np.arange(len(self.sizes_I))
        hit, miss = np.log(mean) + np.log1p(step / mean), np.log1p(-mean) + np.log1p(step / (1 - mean))
        return hit @ self.hits_I + miss @ self.misses_I - np.log1p(step) @ self.sizes_I

    def mirrored(self) -> "Likelihood":
        """Of the misses as if they were the hits."""
        return Likelihood(self.misses_I, self.hits_I, self.sizes_I)

    def best_over_theta(self, mean: float) -> float:
        """The maximum over theta >= 0 at a given mean."""
        near = self.grid_theta(mean)
        best = minimize_scalar(lambda log: -self(mean, np.exp(log)), bounds=(near - 1, near + 1), method="bounded")
        return max(-float(best.fun), self(mean, 0.0))

    def grid_theta(self, mean: float) -> float:
        """log theta of the highest point on a grid: a start, since the likelihood is flat towards theta = 0."""
        grid = np.linspace(*LOG_THETA, 65)
        return float(grid[np.argmax([self(mean, float(np.exp(log))) for log in grid])])

    def best_over_b(self, a: float, mean: float) -> float:
        """The maximum over b at a given a, searched around b = a (1 - mean) / mean."""
        centre = np.log(a) + np.log1p(-mean) - np.log(mean)

        def loss(log_b: float) -> float:
            total = a + np.exp(log_b)
            return -self(a / total, 1 / total)

        best = minimize_scalar(loss, bounds=(centre - 5, centre + 5), method="bounded", options={"xatol": 1e-7})
        return -float(best.fun)


def _groups_above(counts: NDArray[np.int64], largest: int) -> Array:
    """How many groups have a count above i, for i < largest."""
    return len(counts) - np.cumsum(np.bincount(counts, minlength=largest + 1))[:largest].astype(np.float64)


def maximise(likelihood: Likelihood) -> tuple[float, float]:
    """The maximum over (mean, theta); theta is 0 where the likelihood does not rise above the binomial limit."""
    mean = float(likelihood.hits_I.sum() / likelihood.sizes_I.sum())
    logit = np.log(mean) - np.log1p(-mean)

    def loss(x: Array) -> float:
        return -likelihood(float(1 / (1 + np.exp(-x[0]))), float(np.exp(x[1])))

    found = minimize(
        loss,
        [logit, likelihood.grid_theta(mean)],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 2000},
    )
    if -found.fun <= likelihood(mean, 0.0) + 1e-6 or found.x[1] < LOG_THETA[0]:
        return mean, 0.0
    return float(1 / (1 + np.exp(-found.x[0]))), float(np.exp(found.x[1]))


def _shape_interval(likelihood: Likelihood, mean: float, theta: float, top: float) -> Bounds:
    """Profile interval of a."""

    def excess(log_a: float) -> float:
        return likelihood.best_over_b(float(np.exp(log_a)), mean) - top + PROFILE_DROP

    ceiling = np.log(mean) - LOG_THETA[0]
    best = min(np.log(mean) - np.log(theta), ceiling) if theta else ceiling
    limit = likelihood(float(likelihood.hits_I.sum() / likelihood.sizes_I.sum()), 0.0)
    high = np.inf if limit >= top - PROFILE_DROP else float(np.exp(crossing(excess, best, 0.5)))
    return float(np.exp(crossing(excess, best, -0.5))), high


def _mean_interval(likelihood: Likelihood, mean: float, top: float) -> Bounds:
    def excess(logit: float) -> float:
        return likelihood.best_over_theta(float(1 / (1 + np.exp(-logit)))) - top + PROFILE_DROP

    best = np.log(mean) - np.log1p(-mean)
    low, high = (crossing(excess, best, step) for step in (-0.1, 0.1))
    return float(1 / (1 + np.exp(-low))), float(1 / (1 + np.exp(-high)))


def crossing(excess: Callable[[float], float], start: float, step: float) -> float:
    """Where `excess`, positive at `start`, first falls to 0 in the direction of `step`; infinite where it never does."""
    near, far = start, start + step
    for _ in range(_STEPS):
        if excess(far) <= 0:
            root: Any = brentq(excess, near, far, xtol=1e-6)
            return float(root)
        near, step = far, 1.5 * step
        far = near + step
    return float(np.copysign(np.inf, step))


def _logpmf(hits: NDArray[np.int64], sizes: NDArray[np.int64], mean: float, theta: float) -> Array:
    if theta == 0:
        return scipy.stats.binom.logpmf(hits, sizes, mean)
    return scipy.stats.betabinom.logpmf(hits, sizes, mean / theta, (1 - mean) / theta)


def goodness_of_fit(
    hits: NDArray[np.int64], sizes: NDArray[np.int64], mean: float, theta: float
) -> tuple[float, int, float | None]:
    """Pearson's statistic over pooled hit counts, its degrees of freedom, and the p-value where there are some."""
    K = np.arange(sizes.max() + 1)
    expected_K = np.zeros(len(K))
    for n, groups in zip(*np.unique(sizes, return_counts=True), strict=True):
        expected_K += groups * np.exp(_logpmf(K, np.full_like(K, n), mean, theta))
    starts = _bin_starts(expected_K)
    observed = np.add.reduceat(np.bincount(hits, minlength=len(K)), starts)
    expected = np.add.reduceat(expected_K, starts)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    dof = max(0, len(starts) - 1 - (2 if theta else 1))
    return statistic, dof, float(scipy.stats.chi2.sf(statistic, dof)) if dof else None


def _bin_starts(expected_K: Array) -> list[int]:
    """First K of each bin: filled from K = 0 up to an expected 5; what is left over joins the last whole bin."""
    starts, filled = [0], 0.0
    for k, expected in enumerate(expected_K):
        if filled >= _EXPECTED:
            starts.append(k)
            filled = 0.0
        filled += expected
    return starts[:-1] if filled < _EXPECTED and len(starts) > 1 else starts


def _bootstrap(
    sizes: NDArray[np.int64], mean: float, theta: float, statistic: float, samples: int, rng: np.random.Generator
) -> float:
    """Share of samples from the fit (refitted each) whose statistic is as large, the observed one counted in."""
    at_least = 1
    for _ in range(samples):
        rates = rng.beta(mean / theta, (1 - mean) / theta, len(sizes)) if theta else mean
        hits = rng.binomial(sizes, rates)
        if 0 < hits.sum() < sizes.sum():
            at_least += goodness_of_fit(hits, sizes, *maximise(Likelihood.of(hits, sizes)))[0] >= statistic
    return at_least / (samples + 1)


def check_counts(hits: ArrayLike, group_size: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hits and sizes of each group as int64. Raises ValueError as `fit_hit_counts` does."""
    counts = _whole(hits, "hits", 0)
    if counts.size == 0:
        raise ValueError("hits: no groups; give one or more hit counts")
    try:
        sizes = np.broadcast_to(_whole(group_size, "group_size", 1), counts.shape)
    except ValueError as error:
        if "whole" in str(error):
            raise
        raise ValueError(f"group_size: {np.size(group_size)} sizes do not fit {counts.size} hit counts") from None
    if (over := counts > sizes).any():
        i = int(over.argmax())
        raise ValueError(f"hits: group {i} has {counts[i]} hits among {sizes[i]} rollouts; check group_size")
    if counts.sum() in (0, sizes.sum()):
        which = "no group has a hit" if counts.sum() == 0 else "every rollout is a hit"
        raise ValueError(f"hits: {which}, so no Beta can be told from another; draw more groups")
    if sizes.max() == 1:
        raise ValueError("group_size: all groups have size 1, which shows the mean hit rate only; give groups of 2 or more")
    if not ((counts > 0) & (counts < sizes)).any():
        raise ValueError("hits: no group has both a hit and a miss, so a and b fall to 0 without end; draw more groups")
    if np.ptp(counts / sizes) == 0:
        rate = counts[0] / sizes[0]
        raise ValueError(f"hits: all {counts.size} groups show the same hit rate {rate:g}; give groups that differ")
    return counts, sizes


def _whole(value: ArrayLike, name: str, least: int) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.ndim > 1:
        raise ValueError(f"{name}: shape {array.shape} must be (groups,)")
    if array.size and (array.dtype.kind not in "iuf" or not np.all(np.isfinite(array)) or np.any(array != np.floor(array))):
        raise ValueError(f"{name}: must hold whole numbers, counts of rollouts")
    if np.any(array < least):
        raise ValueError(f"{name}: {array.min()} must be a whole number of {least} or more")
    return array.astype(np.int64)
