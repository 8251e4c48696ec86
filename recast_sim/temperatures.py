"""Temperatures: the numbers that fit best, and the one at a given entropy. Shared by simulator and trainer.

Axes: N prompts, Y leaves, K numbers, M choices among A options.
"""

import functools
import math

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from recast_sim.matched_temperature import WIDEST, matching_temperature

_FLOOR = -1e9  # stands for the log-probability of an option that is not there, where 0 times it must be 0

# chunks: features (M, A, K) of the options, -inf where there is none; of the chosen (M, K)
Choices = list[tuple[Tensor, Tensor]]


def temperature_at(entropy: float, logprob_NY: Tensor) -> float:
    """The joint temperature at which the mean entropy of pi^(1/T) over the catalog is `entropy`, within 1e-3 .. 1e3."""

    below_NY = logprob_NY - logprob_NY.amax(1, keepdim=True)

    def entropy_at(temperature: float) -> float:
        share_NY = (below_NY / temperature).exp_()
        total_N = share_NY.sum(1)
        expected_N = torch.linalg.vecdot(share_NY, below_NY) / total_N
        return float((total_N.log() - expected_N / temperature).double().mean())

    return matching_temperature(entropy, entropy_at)


def best_numbers(choices: Choices, least: float) -> tuple[tuple[float, ...], float]:
    """The numbers b, of `least` or more, and the largest mean log-likelihood, which they reach: that of a softmax over the
    options of b times their features. It is concave in b, and the search begins at 1."""
    size, total = choices[0][1].shape[1], sum(len(chosen_MK) for _, chosen_MK in choices)

    @functools.cache
    def moments(*inverse: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean log-likelihood, its gradient and its Hessian."""
        b_K, value = torch.tensor(inverse, dtype=torch.float64), 0.0
        slope_K, curvature_KK = torch.zeros(size).double(), torch.zeros(size, size).double()
        for features_MAK, chosen_MK in choices:
            score_MA = (features_MAK @ b_K).nan_to_num(nan=-torch.inf)
            value += float((chosen_MK @ b_K - score_MA.logsumexp(1)).sum())
            share_MA, finite_MAK = score_MA.softmax(1), features_MAK.clamp(min=_FLOOR)
            weighted_MAK = share_MA[..., None] * finite_MAK
            mean_MK = weighted_MAK.sum(1)
            slope_K += (chosen_MK - mean_MK).sum(0)
            curvature_KK += mean_MK.T @ mean_MK - weighted_MAK.flatten(0, 1).T @ finite_MAK.flatten(0, 1)
        return value / total, slope_K.numpy() / total, curvature_KK.numpy() / total

    found = minimize(
        lambda b: -moments(*b.tolist())[0],
        np.ones(size),
        jac=lambda b: -moments(*b.tolist())[1],
        hess=lambda b: -moments(*b.tolist())[2],
        method="trust-exact",
        options={"gtol": 1e-9, "max_trust_radius": 10.0},
    )
    best = tuple(found.x.clip(least, math.exp(WIDEST)).tolist())
    return best, moments(*best)[0]
