"""Independent draws of whole semantic IDs, level by level.

Axis letters: P prompts, G rollouts, L levels, K given levels, B children of a node.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recast_train.model import SidModel, on, require
from recast_train.model.shared_prompts import PromptCache
from recast_train.rollout.rollouts import Part, Rollouts


def sample_iid(
    model: SidModel,
    cache: PromptCache,
    group_size: int,
    generator: torch.Generator,
    temperature: float,
    part: Part,
    given_PK: Tensor | None = None,
    watch: Callable[[Tensor], None] = lambda logprobs_PGB: None,
) -> Rollouts:
    """Draw G leaves for each prompt from the model's softmax over legal children, one uniform a level.

    All rollouts of a prompt start with the nodes `given_PK` of the first levels, which count as certain. `watch` sees the
    log-probabilities of the children that each draw is made from, level by level.
    """
    P, G = len(cache.last_PD), group_size
    given = 0 if given_PK is None else given_PK.shape[1]
    require(given < model.levels, "hint_levels", given, f"leaves nothing to draw of {model.levels} levels; give fewer")
    uniform_LPG = on(part.uniform((model.levels, P, G), 1, generator), model.device)
    hidden, node_PG, steps = cache.last_PD[:, None], torch.zeros(P, 1, dtype=torch.int64, device=model.device), []
    for level in range(model.levels):
        if given_PK is not None and level < given:
            node_PG = given_PK[:, level, None].expand(P, G)
            steps.append(torch.zeros_like(uniform_LPG[level]))
        else:
            logprobs_PGB = model.child_logprobs(hidden, level, node_PG, temperature).expand(P, G, -1)
            watch(logprobs_PGB)
            column_PG = inverse_cdf(logprobs_PGB, uniform_LPG[level])
            steps.append(logprobs_PGB.gather(2, column_PG[..., None])[..., 0])
            node_PG = model.table("first_child", level)[node_PG] + column_PG
        if level < model.levels - 1:
            # rollout g sees its own token of every level before, which stands at g, G + g, 2 G + g, ...
            own = torch.eye(G, dtype=torch.bool, device=model.device).repeat(1, level).expand(P, G, -1)
            hidden = cache.extend(level + 1, node_PG, own)
    valid = torch.ones_like(node_PG, dtype=torch.bool)
    return Rollouts(node_PG, model.table("leaf_codes")[node_PG], torch.stack(steps, 2), valid)


def inverse_cdf(logprobs_PGB: Tensor, uniform_PG: Tensor) -> Tensor:
    """Column (P, G) that each uniform number in [0, 1) falls on; never one of probability 0."""
    cdf = logprobs_PGB.exp().cumsum(-1)
    below = cdf <= uniform_PG[..., None] * cdf[..., -1:]
    last = (cdf < cdf[..., -1:]).sum(-1)  # where rounding lifts the product to the total
    return torch.minimum(below.sum(-1), last)
