"""Rollouts from a tree policy: i.i.d., beam and stochastic beam (Gumbel top-k), level by level.

Only i.i.d. draws from a small tree enumerate its leaves, where that is less work. Axes: P prompts, G rollouts, R rows of a
prompt at a level, B children of a node, Y leaves, L levels, H dimension of h.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from recast_sim.world.policy import PolicyError, TreePolicy

Sampler = Literal["iid", "beam", "stochastic_beam"]

_CHUNK = 2**22  # numbers in the vectors of a chunk's children (16 MiB)


@dataclass(frozen=True)
class WorldRollouts:
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
def sample(policy: TreePolicy, x_PD: Tensor, group_size: int, sampler: Sampler, generator: torch.Generator) -> WorldRollouts:
    """Draw a group of rollouts for each prompt by the named sampler ("beam" is deterministic)."""
    if sampler == "iid":
        return sample_iid(policy, x_PD, group_size, generator)
    return beam_search(policy, x_PD, group_size) if sampler == "beam" else stochastic_beam(policy, x_PD, group_size, generator)


@torch.no_grad()
def sample_behind(
    policy: TreePolicy, x_PD: Tensor, leaf_P: Tensor, given: int, group_size: int, generator: torch.Generator
) -> WorldRollouts:
    """Independent draws behind the first `given` codes of a leaf of each prompt; `logprob_PG` is of the codes that were drawn.

    Raises:
        PolicyError: no code is left to draw.
    """
    if given >= policy.levels:
        raise PolicyError(f"hint_levels: {given} leaves nothing to draw of {policy.levels} levels; give fewer")
    start_P1 = policy.get_buffer("leaf_nodes")[leaf_P, given - 1][:, None]
    leaf, logprob = _down_the_tree(policy, policy.encode(x_PD), group_size, generator, given, start_P1)
    return WorldRollouts(leaf, logprob, torch.ones_like(leaf, dtype=torch.bool))


@torch.no_grad()
def sample_iid(policy: TreePolicy, x_PD: Tensor, group_size: int, generator: torch.Generator) -> WorldRollouts:
    """Independent draws by inverse CDF: over all leaves of a small tree, else level by level, one uniform a level."""
    h_PH = policy.encode(x_PD)
    if policy.nodes <= group_size * sum(policy.widths):  # scoring every node is less work than scoring each rollout's
        leaf, logprob = _from_leaves(policy, h_PH, group_size, generator)
    else:
        root_P1 = torch.zeros(len(h_PH), 1, dtype=torch.int64)
        leaf, logprob = _down_the_tree(policy, h_PH, group_size, generator, 0, root_P1)
    return WorldRollouts(leaf, logprob, torch.ones_like(leaf, dtype=torch.bool))


def _from_leaves(policy: TreePolicy, h_PH: Tensor, group_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logprob_PY = policy.leaf_logprobs_of(h_PH)
    uniform_PG = torch.rand(len(h_PH), group_size, generator=generator, dtype=torch.float64)
    leaf_PG = _invert(logprob_PY.exp().cumsum(1, dtype=torch.float64), uniform_PG)
    return leaf_PG, logprob_PY.gather(1, leaf_PG)


def _down_the_tree(
    policy: TreePolicy, h_PH: Tensor, group_size: int, generator: torch.Generator, level: int, start_P1: Tensor
) -> tuple[Tensor, Tensor]:
    """From a node of `level` for each prompt, in chunks of prompts.

    All uniforms are drawn first, prompt by prompt, so the chunks' size changes no draw.
    """
    uniform_PLG = torch.rand(len(h_PH), policy.levels, group_size, generator=generator)
    chunk = max(1, _CHUNK // (group_size * max(policy.widths) * h_PH.shape[1]))
    chunks = zip(h_PH.split(chunk), uniform_PLG.split(chunk), start_P1.split(chunk), strict=True)
    leaf, logprob = zip(*(_chunk_down(policy, level, *part) for part in chunks), strict=True)
    return torch.cat(leaf), torch.cat(logprob)


def _chunk_down(policy: TreePolicy, start: int, h_PH: Tensor, uniform_PLG: Tensor, node_PR: Tensor) -> tuple[Tensor, Tensor]:
    """Leaves and their log-probabilities, (P, G). All rollouts of a prompt start from one row, so R is 1, then G."""
    logprob_PR = torch.zeros(len(h_PH), 1)
    for level in range(start, policy.levels):
        local_PRB = policy.child_logprobs(h_PH, level, node_PR)
        uniform_PRK = uniform_PLG[:, level].unflatten(1, (node_PR.shape[1], -1))  # K draws a row: G at the start, then 1
        slot_PRK = _invert(local_PRB.exp().cumsum(2), uniform_PRK)
        logprob_PR = (logprob_PR[..., None] + local_PRB.gather(2, slot_PRK)).flatten(1)
        node_PR = (policy.first_child(level)[node_PR][..., None] + slot_PRK).flatten(1)
    return node_PR, logprob_PR


def _invert(cdf: Tensor, uniform: Tensor) -> Tensor:
    """First place in each row where the CDF (not normalised) exceeds uniform * its end: a place of positive probability."""
    return torch.searchsorted(cdf, uniform * cdf[..., -1:], right=True)


@torch.no_grad()
def beam_search(policy: TreePolicy, x_PD: Tensor, width: int) -> WorldRollouts:
    """The beam of given width after the last level: distinct leaves, best first (the baseline's search)."""
    h = policy.encode(x_PD)
    node, score = torch.zeros(len(h), 1, dtype=torch.int64), torch.zeros(len(h), 1)
    for level in range(policy.levels):
        logprobs = policy.child_logprobs(h, level, node.clamp(min=0)) + score[..., None]
        node, score = _best(policy.child_nodes(level)[node.clamp(min=0)], logprobs.flatten(1), width)
    return _padded(node, score, width)


@torch.no_grad()
def stochastic_beam(policy: TreePolicy, x_PD: Tensor, width: int, generator: torch.Generator) -> WorldRollouts:
    """Sampling without replacement by Gumbel top-k down the tree (Kool et al. 2019), with importance weights.

    One more leaf than `width` is drawn; its perturbed log-probability is the threshold of the inclusion probabilities. The
    largest of all leaves' is Gumbel(0), not the 0 that the search starts from: with 0 the leaves are right, the weights biased.
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
    threshold = _from_gumbel_root(threshold, generator)
    node, score = node[:, :width], score[:, :width].masked_fill(gumbel[:, :width] == -torch.inf, -torch.inf)
    inclusion = -torch.expm1(-(score - threshold).exp())
    weight = torch.where(score > -torch.inf, score.exp() / inclusion, 0.0).to(score.dtype)
    rollouts = _padded(node, score, width)
    extra = width - weight.shape[1]
    return WorldRollouts(rollouts.leaf_PG, rollouts.logprob_PG, rollouts.valid_PG, pad(weight, (0, extra)))


def _conditional_gumbel(logprobs: Tensor, parent_gumbel: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise on children given that their maximum is the parent's: (P, R, B), -inf where the child is not there."""
    uniform = torch.rand(logprobs.shape, generator=generator).clamp(min=1e-20)
    raw = logprobs - (-uniform.log()).clamp(min=1e-20).log()
    top = raw.amax(2, keepdim=True)
    gap = parent_gumbel[..., None] - raw + torch.log1p(-(raw - top).exp())
    value = parent_gumbel[..., None] - gap.clamp(min=0) - torch.log1p((-gap.abs()).exp())
    return value.masked_fill(logprobs == -torch.inf, -torch.inf).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _from_gumbel_root(score: Tensor, generator: torch.Generator) -> Tensor:
    """What perturbed log-probabilities (P, 1) below a root at 0 are below a root drawn from Gumbel(0).

    exp(-score) of every leaf moves with that of the root, which is exponential; so the draw changes no leaf and no order.
    """
    root = torch.empty(score.shape, dtype=torch.float64).exponential_(generator=generator)
    return -(torch.expm1(-score.double()) + root).log()


def _best(children: Tensor, score: Tensor, width: int) -> tuple[Tensor, Tensor]:
    best = score.topk(min(width, score.shape[1]), dim=1)
    node = children.flatten(1).gather(1, best.indices)
    return node.masked_fill(best.values == -torch.inf, -1), best.values


def _padded(node: Tensor, score: Tensor, width: int) -> WorldRollouts:
    extra = width - node.shape[1]
    node = pad(node, (0, extra), value=-1)
    score = pad(score, (0, extra), value=-torch.inf)
    valid = (node >= 0) & (score > -torch.inf)
    return WorldRollouts(node.masked_fill(~valid, 0), score.masked_fill(~valid, 0.0), valid)
