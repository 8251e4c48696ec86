"""What temperatures alone make of a policy, and the ones that fit its targets best: a control that no training is in.

Three families, each an exponential family in its numbers b (inverse temperatures), so that the mean log-likelihood is concave
in them and has one best fit. Axes: N prompts, Y leaves, L levels, T targets, K numbers, M choices among A options.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recast_sim.matched_temperature import WIDEST
from recast_sim.temperatures import Choices, best_numbers
from recast_sim.world.environment import WorldPrompts
from recast_sim.world.policy import TreePolicy

Family = Literal["joint", "levels", "weights"]
FAMILIES: tuple[Family, ...] = ("joint", "levels", "weights")

_CHUNK = 512  # prompts


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
        by_level = [best_numbers(_siblings(double, prompts, level), math.exp(-WIDEST)) for level in range(policy.levels)]
        return Thermometer(family, tuple(b for (b,), _ in by_level), sum(value for _, value in by_level))
    least = math.exp(-WIDEST) if family == "joint" else -math.exp(WIDEST)
    return Thermometer(family, *best_numbers(_leaves(double, prompts, family), least))


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
