"""Trie-constrained rollouts: i.i.d. samples of whole semantic IDs, with the log-probability they were drawn with.

Axis letters: P prompts, G rollouts, L levels, B children of a node.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel
from recast_train.packed import PromptCache


@dataclass(frozen=True)
class Rollouts:
    """Sampled leaves (P, G), their SIDs (P, G, L), and the log-probability of each level's draw (P, G, L), in nats."""

    leaf_PG: Tensor
    sids_PGL: Tensor
    logprobs_PGL: Tensor

    @property
    def logprob_PG(self) -> Tensor:
        return self.logprobs_PGL.sum(2)


@torch.no_grad()
def sample_rollouts(model: SidModel, prompts: PromptTokens, group_size: int, generator: torch.Generator) -> Rollouts:
    """Draw G leaves for each prompt from the model's softmax over legal children, level by level.

    The draws come from `generator` (on the CPU, so that a GPU samples from the same uniforms).
    """
    P, G = len(prompts.tokens_PT), group_size
    uniform_LPG = torch.rand(model.levels, P, G, generator=generator).to(model.device)
    cache = PromptCache(model, prompts)
    hidden, node_PG, steps = cache.last_PD[:, None], torch.zeros(P, 1, dtype=torch.int64, device=model.device), []
    for level in range(model.levels):
        logprobs_PGB = model.child_logprobs(hidden, level, node_PG).expand(P, G, -1)
        column_PG = _inverse_cdf(logprobs_PGB, uniform_LPG[level])
        steps.append(logprobs_PGB.gather(2, column_PG[..., None])[..., 0])
        node_PG = model.table("children", level)[node_PG].expand(P, G, -1).gather(2, column_PG[..., None])[..., 0]
        if level < model.levels - 1:
            # rollout g sees its own token of every level before, which stands at g, G + g, 2 G + g, ...
            own = torch.eye(G, dtype=torch.bool, device=model.device).repeat(1, level).expand(P, G, -1)
            hidden = cache.extend(level + 1, node_PG, own)
    return Rollouts(node_PG, model.table("leaf_codes")[node_PG], torch.stack(steps, 2))


def _inverse_cdf(logprobs_PGB: Tensor, uniform_PG: Tensor) -> Tensor:
    """Column (P, G) that each uniform number in [0, 1) falls on; never one of probability 0."""
    cdf = logprobs_PGB.exp().cumsum(-1)
    below = cdf <= uniform_PG[..., None] * cdf[..., -1:]
    last = (cdf < cdf[..., -1:]).sum(-1)  # where rounding lifts the product to the total
    return torch.minimum(below.sum(-1), last)
