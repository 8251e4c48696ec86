"""Closed forms for i.i.d. groups with binary rewards: regimes, learnable fractions, widths.

G is the group size, p the hit rate of a prompt, K the hits of a group.
numpy and scipy only, vectorised over p.
"""

from collections.abc import Callable
from numbers import Integral

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, xlog1py

Array = NDArray[np.float64]
_ROUNDING = 1e-6  # a probability that was summed in float32 may leave [0, 1] by this much


def regime_given_hit_rates(p: ArrayLike, group_size: int) -> Array:
    """Expected shares (all_zero, single_hit, multi_hit, all_hit) over prompts with hit rates `p`: Binomial(G, p) hits.

    Raises:
        ValueError: a hit rate outside [0, 1], none at all, or G not a whole number of 2 or more.
    """
    p, group_size = _some_probabilities(p), check_group_size(group_size)
    zero, single, full = (1 - p) ** group_size, group_size * p * (1 - p) ** (group_size - 1), p**group_size
    return _with_multi_hit(zero.mean(), single.mean(), full.mean())


def beta_regime(a: float, b: float, group_size: int) -> Array:
    """Shares (all_zero, single_hit, multi_hit, all_hit) of groups whose hit rates follow Beta(a, b): Beta-binomial hits."""
    check_beta(a, b)
    group_size = check_group_size(group_size)
    return _with_multi_hit(*(float(scipy.stats.betabinom.pmf(k, group_size, a, b)) for k in (0, 1, group_size)))


def _with_multi_hit(zero: float, single: float, full: float) -> Array:
    return np.array([zero, single, max(0.0, 1 - zero - single - full), full], dtype=np.float64)


def learnable_fraction(p: ArrayLike, group_size: int) -> Array:
    """1 - (1 - p)^G - p^G: the chance that an i.i.d. group has both a hit and a miss. The shape of `p`; 0 at G = 1."""
    p, group_size = check_probability(p), check_group_size(group_size, least=1)
    rare = np.minimum(p, 1 - p)  # p and 1 - p are alike here, and the rare one keeps its digits
    return np.maximum(-np.expm1(xlog1py(group_size, -rare)) - rare**group_size, 0.0)


def mean_learnable_fraction(p: ArrayLike, group_size: int) -> float:
    """The learnable fraction of groups over prompts with hit rates `p`, any number of them."""
    return float(learnable_fraction(_some_probabilities(p), group_size).mean())


def learnable_fraction_beta(a: float, b: float, group_size: int) -> float:
    """The same over hit rates from Beta(a, b): 1 - B(a, G + b) / B(a, b) - B(a + G, b) / B(a, b)."""
    check_beta(a, b)
    group_size = check_group_size(group_size, least=1)
    base = betaln(a, b)
    value = -np.expm1(betaln(a, group_size + b) - base) - np.exp(betaln(a + group_size, b) - base)
    return max(float(value), 0.0)


def fit_beta(p: ArrayLike) -> tuple[float, float]:
    """Moment fit of Beta(a, b) to known hit rates; `hit_counts.fit_hit_counts` fits hit counts of sampled groups.

    Raises:
        ValueError: the hit rates do not vary, or vary more than any Beta allows.
    """
    p = _some_probabilities(p)
    mean, variance = p.mean(), p.var()
    if not 0 < variance < mean * (1 - mean):
        raise ValueError(f"p: mean {mean:.3g} and variance {variance:.3g} fit no Beta; give at least two different rates")
    total = mean * (1 - mean) / variance - 1
    return float(mean * total), float((1 - mean) * total)


def rollouts_per_kept_group(learnable: ArrayLike, group_size: int) -> Array:
    """G / learnable: rollouts that DAPO (arXiv 2503.14476) draws for each group it keeps, the dropped ones included.

    The number of draws is geometric. With `learnable_fraction(p, G)` it is the cost where the same prompt is redrawn; where
    a redraw takes a new prompt, as DAPO does, the chance of a draw is the population's mean learnable fraction.

    Raises:
        ValueError: a learnable fraction of 0, which never yields a group.
    """
    learnable = check_probability(learnable, "learnable")
    if np.any(learnable == 0):
        raise ValueError("learnable: 0 never yields a kept group; give a hit rate strictly between 0 and 1, and G of 2 or more")
    return check_group_size(group_size) / learnable


def best_group_size(learnable: Callable[[int], float], prompt_cost: float = 0.0, largest: int = 1024) -> int:
    """The G in 2..largest with most learnable groups for a budget: argmax of learnable(G) / (G + prompt_cost).

    `prompt_cost` is what a group costs besides its rollouts, in rollouts. At 0 the answer is always 2, whatever the hit rates:
    learnable(1) = 0 and learnable is concave in G, so learnable(G) / (G - 1) never rises; 3 ties with 2 exactly.
    """
    if not prompt_cost >= 0:
        raise ValueError(f"prompt_cost: {prompt_cost!r} must be 0 or more, in rollouts")
    sizes = np.arange(2, check_group_size(largest) + 1)
    value = np.array([float(learnable(int(G))) for G in sizes]) / (sizes + prompt_cost)
    return int(sizes[np.argmax(value >= value.max() * (1 - 1e-9))])  # the smallest of those that tie but for rounding


def mean_absolute_advantage(pmf_K: ArrayLike) -> float:
    """GRPO's mean |advantage| of a rollout, std with ddof 0: 2 E[sqrt(K (G - K))] / G, from the chances of K = 0..G hits.

    A group with K hits gives a hit sqrt((G - K) / K) and a miss -sqrt(K / (G - K)); groups without variance give 0. It never
    falls with G: towards infinity it is 2 E[sqrt(p (1 - p))].
    """
    pmf_K = np.asarray(pmf_K, dtype=np.float64)
    G = check_group_size(len(pmf_K) - 1)
    K = np.arange(G + 1)
    return float(2 * pmf_K @ np.sqrt(K * (G - K)) / G)


def rloo_variance(z1: ArrayLike, z2: ArrayLike, group_size: int) -> Array:
    """Variance of RLOO's estimate from one group: 4 (G - 2) z1 / (G (G - 1)) + 2 z2 / (G (G - 1)).

    The estimate is a U-statistic (Hoeffding 1948) with kernel (r1 - r2)(s1 - s2) / 2 over pairs of rollouts, s = grad log pi:
    z1 = Var((r - p) s) / 4 is the variance of the kernel's mean given one rollout, z2 = Var((r1 - r2)(s1 - s2) / 2) its own.
    For vectors read the trace of the covariance, or one component.

    Raises:
        ValueError: a negative z1 or z2, or z2 < 2 z1, which no kernel has.
    """
    z1, z2 = _check_pair_variances(z1, z2)
    G = check_group_size(group_size)
    return (4 * (G - 2) * z1 + 2 * z2) / (G * (G - 1))


def best_rloo_width(z1: ArrayLike, z2: ArrayLike, between: ArrayLike) -> Array:
    """G* = 1 + sqrt((2 z2 - 4 z1) / V): RLOO's width of least variance at a fixed number of rollouts.

    N rollouts give N / G prompts, so the mean's variance is (G / N)(V + rloo_variance(G)) with V = `between` the variance of
    the prompts' true gradients. G* is real, and below 2 where V is large: take the better whole neighbour of at least 2.

    Raises:
        ValueError: z1 or z2 as in `rloo_variance`, or V not positive (with prompts all alike a wider group always helps).
    """
    z1, z2 = _check_pair_variances(z1, z2)
    between = np.asarray(between, dtype=np.float64)
    if not np.all(between > 0):
        raise ValueError(f"between: {between.min():g} must be positive; between equal prompts no width is too large")
    return 1 + np.sqrt((2 * z2 - 4 * z1) / between)


def check_probability(p: ArrayLike, name: str = "p") -> Array:
    """`p` as float64, its rounding outside [0, 1] clipped. Raises ValueError naming the first value that is no probability."""
    values = np.asarray(p, dtype=np.float64)
    bad = ~((values >= -_ROUNDING) & (values <= 1 + _ROUNDING))
    if bad.any():
        raise ValueError(f"{name}: {values[bad].flat[0]:g} must be a probability in [0, 1]")
    return values.clip(0.0, 1.0)


def check_group_size(group_size: int, least: int = 2) -> int:
    """`group_size` as int. Raises ValueError where it is not whole or below `least`."""
    if not isinstance(group_size, Integral) or isinstance(group_size, bool) or group_size < least:
        raise ValueError(f"group_size: {group_size!r} must be a whole number of {least} or more")
    return int(group_size)


def check_beta(a: float, b: float) -> None:
    """Raise ValueError where a or b is not a positive finite number."""
    for name, value in (("a", a), ("b", b)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: {value!r} must be positive and finite; Beta(a, b) needs a > 0 and b > 0")


def _some_probabilities(p: ArrayLike) -> Array:
    values = check_probability(p)
    if values.size == 0:
        raise ValueError("p: no hit rates; give one or more")
    return values


def _check_pair_variances(z1: ArrayLike, z2: ArrayLike) -> tuple[Array, Array]:
    z1, z2 = np.asarray(z1, dtype=np.float64), np.asarray(z2, dtype=np.float64)
    for name, value in (("z1", z1), ("z2", z2)):
        if not np.all(value >= 0):
            raise ValueError(f"{name}: {value.min():g} must be a variance of 0 or more")
    if np.any(2 * z1 > z2 * (1 + 1e-9)):
        raise ValueError(f"z2: {z2.min():g} must be at least 2 z1 = {2 * z1.max():g}, as Hoeffding's inequality demands")
    return z1, np.maximum(z2, 2 * z1)
