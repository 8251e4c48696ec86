"""What a fit to hit counts says of groups of another size, and how sure it is.

N points are pairs of mean hit rate and theta = 1 / (a + b), as in `hit_counts`. numpy and scipy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recast_sim.closed_forms.hit_counts import (
    LOG_THETA,
    PROFILE_DROP,
    Bounds,
    HitCountFit,
    Likelihood,
    check_counts,
    crossing,
)
from recast_sim.closed_forms.iid_groups import Array, check_group_size

_GRID = 61  # points along either axis of the region


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
    than chi2(1)'s 95 % point over 2 against the best. That is the profile-likelihood interval of the share; ends are exact to
    about 2 % of its width. It holds the chance of prompts and rollouts, not a wrong model: see the fit's `p_value`.

    Raises:
        ValueError: counts that `fit_hit_counts` refuses, or a size that is not a whole number of 2 or more.
    """
    sizes = [check_group_size(size) for size in sizes]
    mean_N, theta_N = _region(fit, Likelihood.of(*check_counts(hits, group_size)))
    zero_NG, learnable_NG = _shares(mean_N, theta_N, sizes)
    return [
        Prediction(G, float(zero_NG[0, i]), _range(zero_NG[:, i]), float(learnable_NG[0, i]), _range(learnable_NG[:, i]))
        for i, G in enumerate(sizes)
    ]


def _region(fit: HitCountFit, likelihood: Likelihood) -> tuple[Array, Array]:
    """The fit itself, then a grid of the points that the counts do not reject."""
    level = likelihood(fit.mean, fit.theta) - PROFILE_DROP

    def excess(log_theta: float) -> float:
        return likelihood.best_over_mean(float(np.exp(log_theta)), fit.mean_interval) - level

    start, least = (np.log(fit.theta) if fit.theta else LOG_THETA[0]), LOG_THETA[0]
    low = least if likelihood.best_over_mean(0.0, fit.mean_interval) >= level else crossing(excess, start, -0.05)
    high = min(crossing(excess, start, 0.05), LOG_THETA[1])
    left, right = (np.log(mean) - np.log1p(-mean) for mean in fit.mean_interval)
    logit, log_theta = np.meshgrid(np.linspace(left, right, _GRID), np.linspace(max(low, least), high, _GRID))
    mean_N, theta_N = 1 / (1 + np.exp(-logit.ravel())), np.exp(log_theta.ravel())
    kept = likelihood.of_points(mean_N, theta_N) >= level
    return np.append(fit.mean, mean_N[kept]), np.append(fit.theta, theta_N[kept])


def _shares(mean_N: Array, theta_N: Array, sizes: Sequence[int]) -> tuple[Array, Array]:
    """All-zero and learnable shares, each (N, len(sizes)).

    P(K = 0) is the product over i < G of (1 - mean + i theta) / (1 + i theta), P(K = G) the same of mean + i theta.
    """
    at = np.asarray(sizes) - 1
    step = theta_N[:, None] * np.arange(max(sizes))
    whole = np.log1p(step)
    zero = np.cumsum(np.log1p(step - mean_N[:, None]) - whole, 1)[:, at]
    full = np.cumsum(np.log(step + mean_N[:, None]) - whole, 1)[:, at]
    return np.exp(zero), np.maximum(-np.expm1(zero) - np.exp(full), 0.0)


def _range(share_N: Array) -> Bounds:
    return float(share_N.min()), float(share_N.max())
