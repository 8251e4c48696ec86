"""Step 2 of 3, the narrow kind: numbers for an anchor or a pair of rows, 0 for every other row of the group."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.reductions import flat_rows, groups_where
from recast_sim.signal.steps.pick import pick_hit, pick_miss, rows_mask
from recast_sim.signal.steps.repair import inject_all_zero


def boundary_contrast(state: GroupState) -> GroupState:
    """ReCast's pair (arXiv 2604.22169): +w_plus on the best hit, -w_minus on the valid miss with the highest score.

    A group without a hit or without a valid miss gets nothing.
    """
    positive_P, negative_P = pick_hit(state), pick_miss(state, state.scores_PG())
    alone_P = torch.minimum(positive_P, negative_P) < 0
    return _pair(state, positive_P.masked_fill(alone_P, -1), negative_P.masked_fill(alone_P, -1))


def soften_near_misses(state: GroupState) -> GroupState:
    """Negative advantages times 1 - structural score: the more of the target a miss shares, the lighter it is pushed down.

    Ours. A miss of score 1 gets 0 and is no negative any more.
    """
    softened = state.advantages_PG * (1 - state.scores_PG())
    advantages = torch.where(state.advantages_PG < 0, softened, state.advantages_PG)
    pushed_P = (advantages < 0).any(1)
    return replace(state, advantages_PG=advantages, negative_P=torch.where(pushed_P, state.negative_P, -1))


def anchor_alone(state: GroupState) -> GroupState:
    """Supervised gradient: +w_plus on the anchor, nothing else."""
    return _pair(state, state.anchor_slot_P, torch.full_like(state.anchor_slot_P, -1))


def anchor_against_hardest(state: GroupState) -> GroupState:
    """Supervision with one on-policy hard negative: +w_plus on the anchor, -w_minus on the hardest miss, if any."""
    hardest_P = pick_miss(state, state.scores_PG())
    return _pair(state, state.anchor_slot_P, torch.where(state.anchor_slot_P >= 0, hardest_P, -1))


def rescue_with_anchor(state: GroupState) -> GroupState:
    """In groups without a hit the anchor alone, with +w_anchor, and no other row; what the other groups got stays. Ours."""
    placed = inject_all_zero(state)
    anchor, rescued = rows_mask(placed.anchor_slot_P, state.rewards_PG.shape[1]), placed.anchor_slot_P >= 0
    return replace(
        placed,
        advantages_PG=state.advantages_PG.masked_fill(rescued[:, None], 0.0).masked_fill(anchor, state.config.w_anchor),
        active_PG=torch.where(rescued[:, None], anchor, state.active_PG),
        positive_P=torch.where(rescued, placed.anchor_slot_P, state.positive_P),
        negative_P=state.negative_P.masked_fill(rescued, -1),
    )


def _pair(state: GroupState, positive_P: Tensor, negative_P: Tensor) -> GroupState:
    """+w_plus and -w_minus on two rows of a group; -1 stands for no row, and a group without a positive has no negative."""
    if state.config.w_minus == 0:
        negative_P = torch.full_like(negative_P, -1)
    P, G = state.rewards_PG.shape
    plus_N, minus_N = (flat_rows(slot_P, groups_where(slot_P >= 0), G) for slot_P in (positive_P, negative_P))
    advantages_R = state.rewards_PG.new_zeros(P * G)
    advantages_R.index_fill_(0, plus_N, state.config.w_plus).index_fill_(0, minus_N, -state.config.w_minus)
    return replace(state, advantages_PG=advantages_R.view(P, G), positive_P=positive_P, negative_P=negative_P)
