"""What a policy should get better at, as smooth objectives, and their exact gradients by enumeration of the catalog.

Axes: N prompts, Y leaves, T targets, D parameters.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from recast_sim.exact.gram import flat_gradient
from recast_sim.world.environment import Environment, WorldPrompts
from recast_sim.world.policy import TreePolicy

Objective = Literal["pass_at_1", "log_likelihood", "soft_greedy", "reciprocal_rank"]
SOFT_GREEDY_TEMPERATURE = 1 / 8
_CHUNK = 512  # prompts


def pass_at_1(logprob_NY: Tensor, gain_NY: Tensor, target_NT: Tensor) -> Tensor:
    """Sampled Pass@1 of each prompt, sum over leaves of gain * pi: what GRPO's reward estimates. (N,)"""
    return (gain_NY * logprob_NY.exp()).sum(1)


def log_likelihood(logprob_NY: Tensor, gain_NY: Tensor, target_NT: Tensor) -> Tensor:
    """Mean log pi of a target, nats, (N,)."""
    return (gain_NY * logprob_NY).sum(1) / gain_NY.sum(1)


def soft_greedy(logprob_NY: Tensor, gain_NY: Tensor, target_NT: Tensor) -> Tensor:
    """Sampled Pass@1 of pi^8 renormalised over the catalog, a smooth stand-in for greedy Pass@1, (N,)."""
    return (gain_NY * (logprob_NY / SOFT_GREEDY_TEMPERATURE).softmax(1)).sum(1)


def reciprocal_rank(logprob_NY: Tensor, gain_NY: Tensor, target_NT: Tensor) -> Tensor:
    """Mean over the drawn targets (-1: none) of 1 / expected rank, (N,): the rank in draws without replacement.

    Leaf y comes before t with probability pi(y) / (pi(y) + pi(t)) (Plackett-Luce), so the expected rank is 1 plus the sum of
    these over all other leaves.
    """
    there_NT = target_NT >= 0
    target_NT1 = logprob_NY.gather(1, target_NT.clamp(min=0))[..., None]
    before_NTY = (logprob_NY[:, None] - target_NT1).sigmoid()
    rank_NT = 0.5 + before_NTY.sum(2)  # a target is before itself with probability 1 / 2
    return (there_NT / rank_NT).sum(1) / there_NT.sum(1)


OBJECTIVES: dict[Objective, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "pass_at_1": pass_at_1,
    "log_likelihood": log_likelihood,
    "soft_greedy": soft_greedy,
    "reciprocal_rank": reciprocal_rank,
}


def objective_gradients(policy: TreePolicy, environment: Environment, prompts: int) -> dict[str, Tensor]:
    """Gradients of all objectives, flat (D,), by split and name.

    "train NAME": the first `prompts` train prompts, on what is rewarded. "heldout NAME": all held-out prompts, on the true
    preference where one target is drawn.
    """
    train = environment.train.first(prompts)
    there_NR = (train.reward_NR >= 0).float()
    drawn_NY = torch.zeros(len(train.x_ND), policy.leaves).scatter_add(1, train.reward_NR.clamp(min=0), there_NR)
    splits = {"train": (train, drawn_NY), "heldout": (environment.heldout, environment.heldout_gain_NY)}
    return {
        f"{split} {name}": gradient
        for split, (part, gain_NY) in splits.items()
        for name, gradient in _gradients(policy, part, gain_NY).items()
    }


def _gradients(policy: TreePolicy, prompts: WorldPrompts, gain_NY: Tensor) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    tables = (prompts.x_ND, gain_NY, prompts.reward_NR)
    for x, gain, target in zip(*(table.split(_CHUNK) for table in tables), strict=True):
        logprob_NY = policy.leaf_logprobs(x.to(policy.biases[0].dtype))
        for name, objective in OBJECTIVES.items():
            value = objective(logprob_NY, gain.to(logprob_NY.dtype), target).sum() / len(prompts.x_ND)
            total[name] = total.get(name, 0) + flat_gradient(policy, value, retain_graph=True)
    return total
