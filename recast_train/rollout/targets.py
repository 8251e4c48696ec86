"""Prompts with one target or several, any of which is a hit: their leaves, their probabilities, rewards, and the anchor.

Axis letters: N or P prompts, T targets (-1 on the right where a prompt has fewer), G rollouts, Y leaves, L levels.
"""

import torch
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.signal import Constructor, SignalConfig, choose_anchor, exact_hit, structural_score
from recast_train.data import Prompts
from recast_train.model import PromptTokens, SidModel
from recast_train.model.shared_prompts import packed_logprobs


def target_leaves(catalog: Catalog, prompts: Prompts) -> Tensor:
    """Leaf of each target, int64 (N, T), -1 where there is none."""
    leaf_NT = torch.from_numpy(catalog.leaf_of_item_I[prompts.targets_NT])
    return leaf_NT.masked_fill(torch.from_numpy(prompts.targets_NT < 0), -1)


def path_logprobs(model: SidModel, prompts: PromptTokens, leaf_PT: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each leaf after its prompt, (P, T), -inf where the leaf is -1. With gradient; a prompt without any
    leaf is not computed."""
    there_PT = leaf_PT >= 0
    logprob_N = packed_logprobs(model, prompts, there_PT.nonzero()[:, 0], leaf_PT[there_PT], temperature).sum(1)
    nothing_PT = logprob_N.new_full(leaf_PT.shape, -torch.inf)
    return nothing_PT.masked_scatter(there_PT, logprob_N)


def rewards(leaf_codes_YL: Tensor, leaf_PG: Tensor, target_leaf_PT: Tensor) -> tuple[Tensor, Tensor]:
    """Exact hits of any target, and structural scores against the best target, both float (P, G)."""
    there_PT = target_leaf_PT >= 0
    sids_PGL, targets_PTL = leaf_codes_YL[leaf_PG], leaf_codes_YL[target_leaf_PT.clamp(min=0)]
    hits_PG = exact_hit(sids_PGL, targets_PTL, there_PT)
    return hits_PG, structural_score(sids_PGL, targets_PTL, target_mask_PT=there_PT)


def choose_anchors(
    target_leaf_PT: Tensor, config: SignalConfig, logprob_PT: Tensor | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Leaf of each prompt's anchor by `config.anchor_choice`, (P,), and its log-probability where those of all are given.

    "random" draws from `seed` alone, for the whole batch at once: it changes no rollout, and the share of a process does not
    change it. "most_likely" needs `logprob_PT` (SignalError without) where a prompt has a choice.
    """
    rule = config.anchor_choice if target_leaf_PT.shape[1] > 1 else "first"
    column_P = choose_anchor(target_leaf_PT >= 0, rule, logprob_PT, torch.Generator().manual_seed(seed))
    chosen_P1 = column_P[:, None]
    return target_leaf_PT.gather(1, chosen_P1)[:, 0], None if logprob_PT is None else logprob_PT.gather(1, chosen_P1)[:, 0]


def needs_logprobs(target_leaf_PT: Tensor, constructor: Constructor, config: SignalConfig) -> bool:
    """Whether the choice of the anchors, the constructor or the anchors' weighting reads the targets' log-probabilities."""
    chosen_by_them = config.anchor_choice == "most_likely" and target_leaf_PT.shape[1] > 1
    weighed_by_them = "anchor_logprob_P" in constructor.needs or config.anchor_weighting in ("clipped", "luffy")
    return chosen_by_them or weighed_by_them
