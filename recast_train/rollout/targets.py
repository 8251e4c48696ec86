"""Prompts with one target or several, any of which is a hit: their leaves, their probabilities, and the anchor.

Axis letters: N or P prompts, T targets (-1 on the right where a prompt has fewer), G rollouts, Y leaves, L levels.
"""

import torch
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.signal import Constructor, SignalConfig, choose_anchor
from recast_train.data import Prompts
from recast_train.model import PromptTokens, SidModel, beside
from recast_train.model.shared_prompts import packed_logprobs


def target_leaves(catalog: Catalog, prompts: Prompts) -> Tensor:
    """Leaf of each target, int64 (N, T), -1 where there is none; a leaf that targets of a prompt share is there once."""
    leaf_NT = torch.from_numpy(catalog.leaf_of_item_I[prompts.targets_NT])
    leaf_NT = leaf_NT.masked_fill(torch.from_numpy(prompts.targets_NT < 0), -1)
    if leaf_NT.shape[1] == 1 or not catalog.collisions:
        return leaf_NT
    earlier_TT = torch.ones(leaf_NT.shape[1], leaf_NT.shape[1], dtype=torch.bool).tril(-1)
    again_NT = ((leaf_NT[:, :, None] == leaf_NT[:, None, :]) & earlier_TT).any(2)
    leaf_NT = leaf_NT.masked_fill(again_NT, -1)
    return leaf_NT.gather(1, (leaf_NT < 0).int().sort(dim=1, stable=True).indices)  # what is missing stays on the right


def path_logprobs(model: SidModel, prompts: PromptTokens, leaf_PT: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each code of each leaf after its prompt, (P, T, L), -inf where the leaf is -1. With gradient; a prompt
    without any leaf is not computed. Prompts and leaves are on the CPU, or both on the model's device."""
    there_PT = leaf_PT >= 0
    logprob_NL = packed_logprobs(model, prompts, there_PT.nonzero()[:, 0], leaf_PT[there_PT], temperature)
    nothing_PTL = logprob_NL.new_full((*leaf_PT.shape, logprob_NL.shape[1]), -torch.inf)
    return nothing_PTL.masked_scatter(beside(there_PT, logprob_NL)[..., None], logprob_NL)


def choose_anchors(
    target_leaf_PT: Tensor, config: SignalConfig, logprob_PTL: Tensor | None, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Leaf of each prompt's anchor by `config.anchor_choice`, (P,), and, where those of all targets are given, its
    log-probabilities as arguments of `construct`.

    "random" draws from `seed` alone, for the whole batch at once: it changes no rollout, and the share of a process does not
    change it. "most_likely" needs `logprob_PTL` (SignalError without) where a prompt has a choice.
    """
    rule = config.anchor_choice if target_leaf_PT.shape[1] > 1 else "first"
    logprob_PT = None if logprob_PTL is None else logprob_PTL.sum(2)
    column_P = choose_anchor(target_leaf_PT >= 0, rule, logprob_PT, torch.Generator().manual_seed(seed))
    chosen_P1 = column_P[:, None]
    anchor_P = target_leaf_PT.gather(1, chosen_P1)[:, 0]
    if logprob_PTL is None or logprob_PT is None:
        return anchor_P, {}
    logprob_PL = logprob_PTL[torch.arange(len(column_P)), column_P]
    return anchor_P, {"anchor_logprob_P": logprob_PT.gather(1, chosen_P1)[:, 0], "anchor_logprob_PL": logprob_PL}


def needs_logprobs(target_leaf_PT: Tensor, constructor: Constructor, config: SignalConfig) -> bool:
    """Whether the choice of the anchors, the constructor or the anchors' weighting reads the targets' log-probabilities."""
    chosen_by_them = config.anchor_choice == "most_likely" and target_leaf_PT.shape[1] > 1
    read = bool({"anchor_logprob_P", "anchor_logprob_PL"} & set(constructor.needs))
    return chosen_by_them or read or config.anchor_weighting in ("clipped", "luffy")
