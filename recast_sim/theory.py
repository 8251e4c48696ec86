"""Closed forms for i.i.d. groups with binary rewards: regimes, learnable fractions, Beta-binomials.

G is the group size, p the hit rate of a prompt.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln
from scipy.stats import betabinom


def regime_given_hit_rates(p: ArrayLike, group_size: int) -> NDArray[np.float64]:
    """Expected shares (all_zero, single_hit, multi_hit, all_hit) over prompts with hit rates `p`: Binomial(G, p) hits."""
    p = np.asarray(p, dtype=np.float64)
    zero, single, full = (1 - p) ** group_size, group_size * p * (1 - p) ** (group_size - 1), p**group_size
    shares = np.array([zero.mean(), single.mean(), 0.0, full.mean()])
    shares[2] = 1 - shares.sum()
    return shares


def learnable_fraction(p: ArrayLike, group_size: int) -> NDArray[np.float64]:
    """1 - (1 - p)^G - p^G: the chance that an i.i.d. group has both a hit and a miss."""
    p = np.asarray(p, dtype=np.float64)
    return 1 - (1 - p) ** group_size - p**group_size


def learnable_fraction_beta(a: float, b: float, group_size: int) -> float:
    """The same over hit rates from Beta(a, b): 1 - B(a, G + b) / B(a, b) - B(a + G, b) / B(a, b)."""
    base = betaln(a, b)
    return float(1 - np.exp(betaln(a, group_size + b) - base) - np.exp(betaln(a + group_size, b) - base))


def beta_regime(a: float, b: float, group_size: int) -> NDArray[np.float64]:
    """Shares (all_zero, single_hit, multi_hit, all_hit) of groups whose hit rates follow Beta(a, b)."""
    zero, single, full = (float(betabinom.pmf(k, group_size, a, b)) for k in (0, 1, group_size))
    return np.array([zero, single, 1 - zero - single - full, full])


def fit_beta(p: ArrayLike) -> tuple[float, float]:
    """Moment fit of Beta(a, b) to observed hit rates in (0, 1).

    Raises:
        ValueError: the hit rates do not vary, or vary more than any Beta allows.
    """
    p = np.asarray(p, dtype=np.float64)
    mean, variance = p.mean(), p.var()
    if not 0 < variance < mean * (1 - mean):
        raise ValueError(f"p: mean {mean:.3g} and variance {variance:.3g} fit no Beta; give at least two different rates")
    total = mean * (1 - mean) / variance - 1
    return float(mean * total), float((1 - mean) * total)
