"""What a fit to hit counts says of groups of another size, and how sure it is.

N points are pairs of mean hit rate and theta = 1 / (a + b), as in `hit_counts`. numpy and scipy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recast_sim.closed_forms.hit_counts import (
    LOG_THETA,
    PROFILE_DROP,
    Bounds,
    HitCountFit,
    Likelihood,
    check_counts,
)
from recast_sim.closed_forms.iid_groups import Array, check_group_size

_THETAS, _MEANS = 41, 7  # points of the region along theta, and between the edges at each theta
_LOGIT, _HALVINGS = 30.0, 32  # of means that are searched
_ROUNDS = 2  # of searching an end of theta between 41 points


@dataclass(frozen=True)
class Prediction:
    """Shares of groups of `group_size` without a hit, and with a hit and a miss, each with its 95 % interval."""

    group_size: int
    all_zero: float
    all_zero_interval: Bounds
    learnable: float
    learnable_interval: Bounds


def predict(fit: HitCountFit, hits: ArrayLike, group_size: ArrayLike, sizes: Sequence[int]) -> list[Prediction]:
    """Shares at other group sizes from a fit and the counts that it was made of.

    The interval is the range of the share over all (a, b) whose likelihood the counts do not reject: those that lose less
    than chi2(1)'s 95 % point over 2 against the best. That is the profile-likelihood interval of the share. It holds the
    chance of prompts and rollouts, not a wrong model: see the fit's `p_value`.

    Raises:
        ValueError: counts that `fit_hit_counts` refuses, or a size that is not a whole number of 2 or more.
    """
    sizes = [check_group_size(size) for size in sizes]
    zero_NG, full_NG = flat_shares(*likely_points(fit.mean, fit.theta, Likelihood.of(*check_counts(hits, group_size))), sizes)
    learnable_NG = np.maximum(1 - zero_NG - full_NG, 0.0)
    return [
        Prediction(G, float(zero_NG[0, i]), _range(zero_NG[:, i]), float(learnable_NG[0, i]), _range(learnable_NG[:, i]))
        for i, G in enumerate(sizes)
    ]


def likely_points(mean: float, theta: float, likelihood: Likelihood) -> tuple[Array, Array]:
    """Mean and theta, each (N,): the best ones, which are given, then those of the region that the counts do not reject, its
    edge included. The range of a figure over them is its 95 % profile-likelihood interval."""
    level = likelihood(mean, theta) - PROFILE_DROP
    low, high = _theta_range(likelihood, level, np.log(theta) if theta else LOG_THETA[0])
    angle_T = np.linspace(0, np.pi, _THETAS)  # close together towards the ends, where the edge turns
    theta_T = np.exp((low + high) / 2 - (high - low) / 2 * np.cos(angle_T))
    left_T, right_T = _mean_edges(likelihood, theta_T, level)
    inside_MT = left_T + (right_T - left_T) * np.linspace(0, 1, _MEANS)[:, None]
    return np.append(mean, inside_MT.ravel()), np.append(theta, np.tile(theta_T, _MEANS))


def _theta_range(likelihood: Likelihood, level: float, inside: float) -> Bounds:
    """The least and the greatest log theta that are not rejected at their best mean; `inside` is not."""

    def held(log_T: Array) -> NDArray[np.bool_]:
        theta_T = np.exp(log_T)
        return likelihood.of_points(_best_means(likelihood, theta_T), theta_T) >= level

    log_T = np.sort(np.append(np.linspace(*LOG_THETA, _THETAS), inside))
    at = np.flatnonzero(held(log_T))
    low, high = log_T[max(0, at[0] - 1) : at[0] + 1], log_T[at[-1] : at[-1] + 2]
    for _ in range(_ROUNDS):
        low_T, high_T = np.linspace(low[0], low[-1], _THETAS), np.linspace(high[0], high[-1], _THETAS)
        held_2T = held(np.concatenate([low_T, high_T])).reshape(2, -1)
        first, last = int(held_2T[0].argmax()), int(np.flatnonzero(held_2T[1])[-1])
        low, high = low_T[max(0, first - 1) : first + 1], high_T[last : last + 2]
    return float(low[-1]), float(high[0])


def _best_means(likelihood: Likelihood, theta_T: Array) -> Array:
    """The mean of most likelihood at each theta, (T,): where the slope, which falls with the mean, is 0."""
    step_TI = theta_T[:, None] * np.arange(len(likelihood.sizes_I))

    def rises(mean_T: Array) -> NDArray[np.bool_]:
        hit_TI, miss_TI = mean_T[:, None] + step_TI, 1 - mean_T[:, None] + step_TI
        return (likelihood.hits_I / hit_TI).sum(1) > (likelihood.misses_I / miss_TI).sum(1)

    return _bisected(rises, np.full(len(theta_T), -_LOGIT), np.full(len(theta_T), _LOGIT))


def _mean_edges(likelihood: Likelihood, theta_T: Array, level: float) -> tuple[Array, Array]:
    """The smallest and the largest mean at each theta that is not rejected, (T,) each."""
    best_T = _best_means(likelihood, theta_T)
    middle_T, end_T = np.log(best_T) - np.log1p(-best_T), np.full(len(theta_T), _LOGIT)

    def rejected(mean_T: Array) -> NDArray[np.bool_]:
        return likelihood.of_points(mean_T, theta_T) < level

    left_T = _bisected(rejected, -end_T, middle_T)
    return np.minimum(left_T, best_T), np.maximum(_bisected(lambda mean_T: ~rejected(mean_T), middle_T, end_T), best_T)


def _bisected(before: Callable[[Array], NDArray[np.bool_]], low_T: Array, high_T: Array) -> Array:
    """The means, between two logits each, up to which `before` holds."""
    for _ in range(_HALVINGS):
        middle_T = (low_T + high_T) / 2
        held_T = before(1 / (1 + np.exp(-middle_T)))
        low_T, high_T = np.where(held_T, middle_T, low_T), np.where(held_T, high_T, middle_T)
    return 1 / (1 + np.exp(-(low_T + high_T) / 2))


def flat_shares(mean_N: ArrayLike, theta_N: ArrayLike, sizes: Sequence[int]) -> tuple[Array, Array]:
    """Shares of groups without a hit, and of hits alone, each (N, len(sizes)), at any sizes of 1 and more.

    P(K = 0) is the product over i < G of (1 - mean + i theta) / (1 + i theta), P(K = G) the same of mean + i theta.
    """
    mean_N1, theta_N1 = (np.asarray(value, dtype=np.float64)[:, None] for value in (mean_N, theta_N))
    at = np.asarray(sizes) - 1
    step = theta_N1 * np.arange(max(sizes))
    whole = np.log1p(step)
    zero = np.cumsum(np.log1p(step - mean_N1) - whole, 1)[:, at]
    full = np.cumsum(np.log(step + mean_N1) - whole, 1)[:, at]
    return np.exp(zero), np.exp(full)


def power_moment(mean_N: ArrayLike, theta_N: ArrayLike, hits: int, misses: int) -> Array:
    """E[p^hits (1 - p)^misses] over prompts, (N,): the chance of so many hits and then so many misses in a row."""
    mean_N, theta_N = np.asarray(mean_N, dtype=np.float64), np.asarray(theta_N, dtype=np.float64)
    value = np.ones_like(mean_N)
    for start, steps in ((mean_N, hits), (1 - mean_N, misses)):
        for i in range(steps):
            value = value * (start + i * theta_N)
    for i in range(hits + misses):
        value = value / (1 + i * theta_N)
    return value


def _range(share_N: Array) -> Bounds:
    return float(share_N.min()), float(share_N.max())
