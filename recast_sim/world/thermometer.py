"""What temperatures alone make of a policy, and the ones that fit its targets best: a control that no training is in.

Three families, each an exponential family in its numbers b (inverse temperatures), so that the mean log-likelihood is concave
in them and has one best fit. Axes: N prompts, Y leaves, L levels, T targets, K numbers, M choices among A options.
"""

import copy
import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize, root_scalar
from torch import Tensor

from recast_sim.world.environment import WorldPrompts
from recast_sim.world.policy import TreePolicy

Family = Literal["joint", "levels", "weights"]
FAMILIES: tuple[Family, ...] = ("joint", "levels", "weights")

_CHUNK = 512  # prompts
_WIDEST = math.log(1e3)  # of log temperature: beyond it a distribution is flat or a point
_FLOOR = -1e9  # stands for the log-probability of an option that is not there, where 0 times it must be 0


@dataclass(frozen=True)
class Thermometer:
    """A family and its numbers, inverse temperatures.

    Attributes:
        family: "joint": pi(y)^b renormalised over the catalog, which keeps the order of the leaves. "levels": the logits of
            level l times b_l, each level normalised by itself. "weights": exp(sum over levels of b_l log pi_l(y))
            renormalised over the catalog, the order of a beam that weighs its levels.
        inverse: b, one number ("joint") or one a level.
        log_likelihood: mean over the prompts that it was fitted to, nats a target.
    """

    family: Family
    inverse: tuple[float, ...]
    log_likelihood: float

    def leaf_logprobs(self, policy: TreePolicy, x_ND: Tensor) -> Tensor:
        """Log-probability of every leaf under the policy at these temperatures, (N, Y)."""
        if self.family == "levels":
            return cooled(policy, self.inverse).leaf_logprobs(x_ND)
        if self.family == "joint":
            return (policy.leaf_logprobs(x_ND) * self.inverse[0]).log_softmax(1)
        steps_NYL = leaf_steps(policy, x_ND)
        return (steps_NYL @ steps_NYL.new_tensor(self.inverse)).log_softmax(1)


def cooled(policy: TreePolicy, inverse_L: tuple[float, ...]) -> TreePolicy:
    """A copy of the policy whose logits of level l are multiplied by `inverse_L[l]`."""
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for vectors, bias, inverse in zip(copied.vectors, copied.biases, inverse_L, strict=True):
            vectors.mul_(inverse)
            bias.mul_(inverse)
    return copied


def leaf_steps(policy: TreePolicy, x_ND: Tensor) -> Tensor:
    """Log-probability of each step on the way to every leaf, (N, Y, L)."""
    steps_VN = policy.step_logprobs_of(policy.encode(x_ND))
    counts = [len(bias) for bias in policy.biases]
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1]
    return steps_VN[policy.get_buffer("leaf_nodes") + starts].permute(2, 0, 1)


@torch.no_grad()
def fit(policy: TreePolicy, prompts: WorldPrompts, family: Family) -> Thermometer:
    """The numbers at which the targets' mean log-likelihood is largest: a concave problem, solved from 1 in float64.

    Temperatures lie within 1e-3 and 1e3, where a distribution is a point or flat; the numbers of "weights" may be negative.
    """
    double = copy.deepcopy(policy).double()
    if family == "levels":
        by_level = [_best(_siblings(double, prompts, level), math.exp(-_WIDEST)) for level in range(policy.levels)]
        return Thermometer(family, tuple(b for (b,), _ in by_level), sum(value for _, value in by_level))
    least = math.exp(-_WIDEST) if family == "joint" else -math.exp(_WIDEST)
    return Thermometer(family, *_best(_leaves(double, prompts, family), least))


def temperature_at(entropy: float, logprob_NY: Tensor) -> float:
    """The joint temperature at which the mean entropy of pi^(1/T) over the catalog is `entropy`, within 1e-3 .. 1e3."""

    below_NY = logprob_NY - logprob_NY.amax(1, keepdim=True)

    def excess(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        share_NY = (below_NY * inverse).exp_()
        total_N = share_NY.sum(1)
        expected_N = torch.linalg.vecdot(share_NY, below_NY) / total_N
        return float((total_N.log() - inverse * expected_N).double().mean()) - entropy

    low, high = -_WIDEST, _WIDEST
    if excess(low) >= 0 or excess(high) <= 0:
        return math.exp(low if excess(low) >= 0 else high)
    return math.exp(root_scalar(excess, bracket=(low, high), xtol=1e-9).root)


Choices = list[
    tuple[Tensor, Tensor]
]  # chunks: features (M, A, K) of the options, -inf where there is none; of the chosen (M, K)


def _leaves(policy: TreePolicy, prompts: WorldPrompts, family: Family) -> Choices:
    """The catalog's leaves as options of each prompt; where it has several targets, their mean is the choice."""
    choices = []
    for x, target in zip(prompts.x_ND.split(_CHUNK), prompts.target_NT.split(_CHUNK), strict=True):
        steps_NYL = leaf_steps(policy, x.double())
        features_NYK = steps_NYL.sum(2, keepdim=True) if family == "joint" else steps_NYL
        index_NTK = target[..., None].expand(-1, -1, features_NYK.shape[2])
        choices.append((features_NYK, features_NYK.gather(1, index_NTK).mean(1)))
    return choices


def _siblings(policy: TreePolicy, prompts: WorldPrompts, level: int) -> Choices:
    """The children of a level's node on the way to each target as options."""
    nodes_YL, choices = policy.get_buffer("leaf_nodes"), []
    for x, target in zip(prompts.x_ND.split(_CHUNK), prompts.target_NT.split(_CHUNK), strict=True):
        parent_NT = nodes_YL[target, level - 1] if level else torch.zeros_like(target)
        options_NTB = policy.child_logprobs(policy.encode(x.double()), level, parent_NT)
        slot_NT1 = (nodes_YL[target, level] - policy.first_child(level)[parent_NT])[..., None]
        choices.append((options_NTB.flatten(0, 1)[..., None], options_NTB.gather(2, slot_NT1).flatten(0, 1)))
    return choices


def _best(choices: Choices, least: float) -> tuple[tuple[float, ...], float]:
    """The numbers, of `least` or more, and the mean log-likelihood that they reach."""
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
    best = tuple(found.x.clip(least, math.exp(_WIDEST)).tolist())
    return best, moments(*best)[0]
