"""Rollouts from a tree policy: i.i.d., beam and stochastic beam (Gumbel top-k), level by level, never enumerating leaves.

Axes: P prompts, G rollouts, B children of a node.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recast_sim.policy import TreePolicy

Sampler = Literal["iid", "beam", "stochastic_beam"]


@dataclass(frozen=True)
class Rollouts:
    """A batch of groups.

    Attributes:
        leaf_PG: int64 sampled leaves; 0 where not valid.
        logprob_PG: log pi of each rollout; 0 where not valid.
        valid_PG: false where a beam ran out of distinct leaves.
        weight_PG: pi / inclusion probability for stochastic beams (Kool et al. 2019, arXiv 1903.06059): the sum over a group
            of weight * f is an unbiased estimate of E_pi[f]. None for the other samplers.
    """

    leaf_PG: Tensor
    logprob_PG: Tensor
    valid_PG: Tensor
    weight_PG: Tensor | None = None


@torch.no_grad()
def sample(policy: TreePolicy, x_PD: Tensor, group_size: int, sampler: Sampler, generator: torch.Generator) -> Rollouts:
    """Draw a group of rollouts for each prompt by the named sampler ("beam" is deterministic)."""
    if sampler == "iid":
        return sample_iid(policy, x_PD, group_size, generator)
    return beam_search(policy, x_PD, group_size) if sampler == "beam" else stochastic_beam(policy, x_PD, group_size, generator)


@torch.no_grad()
def sample_iid(policy: TreePolicy, x_PD: Tensor, group_size: int, generator: torch.Generator) -> Rollouts:
    """Independent draws by inverse CDF, one uniform a level."""
    h = policy.encode(x_PD)
    node = torch.zeros(len(h), 1, dtype=torch.int64)
    logprob = torch.zeros(len(h), group_size)
    for level in range(policy.levels):
        logprobs = policy.child_logprobs(h, level, node)
        cdf = logprobs.exp().cumsum(2)
        u = torch.rand(len(h), group_size, 1, generator=generator) * cdf[..., -1:]
        slot = (cdf <= u).sum(2, keepdim=True).clamp(max=cdf.shape[2] - 1)
        logprob = logprob + logprobs.expand(-1, group_size, -1).gather(2, slot)[..., 0]
        node = policy.child_nodes(level)[node].expand(-1, group_size, -1).gather(2, slot)[..., 0]
    return Rollouts(node, logprob, torch.ones_like(node, dtype=torch.bool))


@torch.no_grad()
def beam_search(policy: TreePolicy, x_PD: Tensor, width: int) -> Rollouts:
    """The beam of given width after the last level: distinct leaves, best first (the baseline's search)."""
    h = policy.encode(x_PD)
    node, score = torch.zeros(len(h), 1, dtype=torch.int64), torch.zeros(len(h), 1)
    for level in range(policy.levels):
        logprobs = policy.child_logprobs(h, level, node.clamp(min=0)) + score[..., None]
        node, score = _best(policy.child_nodes(level)[node.clamp(min=0)], logprobs.flatten(1), width)
    return _padded(node, score, width)


@torch.no_grad()
def stochastic_beam(policy: TreePolicy, x_PD: Tensor, width: int, generator: torch.Generator) -> Rollouts:
    """Sampling without replacement by Gumbel top-k down the tree (Kool et al. 2019), with importance weights.

    One more leaf than `width` is drawn; its perturbed log-probability is the threshold of the inclusion probabilities.
    """
    h = policy.encode(x_PD)
    node, score, gumbel = torch.zeros(len(h), 1, dtype=torch.int64), torch.zeros(len(h), 1), torch.zeros(len(h), 1)
    for level in range(policy.levels):
        logprobs = policy.child_logprobs(h, level, node.clamp(min=0)) + score[..., None]
        perturbed = _conditional_gumbel(logprobs, gumbel, generator)
        children = policy.child_nodes(level)[node.clamp(min=0)]
        node, gumbel = _best(children, perturbed.flatten(1), width + 1)
        score = logprobs.flatten(1).gather(1, perturbed.flatten(1).topk(node.shape[1]).indices)
    threshold = gumbel[:, width:] if gumbel.shape[1] > width else torch.full((len(h), 1), -torch.inf)
    node, score = node[:, :width], score[:, :width].masked_fill(gumbel[:, :width] == -torch.inf, -torch.inf)
    inclusion = -torch.expm1(-(score - threshold).exp())
    weight = torch.where(score > -torch.inf, score.exp() / inclusion, 0.0)
    rollouts = _padded(node, score, width)
    extra = width - weight.shape[1]
    return Rollouts(rollouts.leaf_PG, rollouts.logprob_PG, rollouts.valid_PG, torch.nn.functional.pad(weight, (0, extra)))


def _conditional_gumbel(logprobs: Tensor, parent_gumbel: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise on children given that their maximum is the parent's: (P, R, B), -inf where the child is not there."""
    uniform = torch.rand(logprobs.shape, generator=generator).clamp(min=1e-20)
    raw = logprobs - (-uniform.log()).clamp(min=1e-20).log()
    top = raw.amax(2, keepdim=True)
    gap = parent_gumbel[..., None] - raw + torch.log1p(-(raw - top).exp())
    value = parent_gumbel[..., None] - gap.clamp(min=0) - torch.log1p((-gap.abs()).exp())
    return value.masked_fill(logprobs == -torch.inf, -torch.inf).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _best(children: Tensor, score: Tensor, width: int) -> tuple[Tensor, Tensor]:
    best = score.topk(min(width, score.shape[1]), dim=1)
    node = children.flatten(1).gather(1, best.indices)
    return node.masked_fill(best.values == -torch.inf, -1), best.values


def _padded(node: Tensor, score: Tensor, width: int) -> Rollouts:
    extra = width - node.shape[1]
    node = torch.nn.functional.pad(node, (0, extra), value=-1)
    score = torch.nn.functional.pad(score, (0, extra), value=-torch.inf)
    valid = (node >= 0) & (score > -torch.inf)
    return Rollouts(node.masked_fill(~valid, 0), score.masked_fill(~valid, 0.0), valid)
