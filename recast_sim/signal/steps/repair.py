"""Step 1 of 3: which slot of a group receives a ground-truth anchor.

A repair only decides; the caller writes the anchor's tokens into row `anchor_slot_P`. The anchor is the ground truth, so
its reward and its structural score are known here without looking at it.
"""

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from recast_sim.signal.checks import shaped
from recast_sim.signal.group_state import GroupState
from recast_sim.signal.reductions import flat_rows, groups_where
from recast_sim.signal.signal_config import AnchorChoice, SignalError
from recast_sim.signal.steps.pick import drawn, pick_cheapest


def repair_all_zero(state: GroupState) -> GroupState:
    """ReCast's repair (arXiv 2604.22169): in groups without a hit, the anchor takes the place of the lowest score.

    Rows that are not valid go first, they cost nothing. Groups with a hit or without an anchor are left alone; doing it
    twice equals doing it once.
    """
    return _place(state, _cheapest_row(state, state.scores_PG()), state.has_anchor_P & ~state.any_hit_P())


def inject_last(state: GroupState) -> GroupState:
    """MiniOneRec's `add_gt`: the last slot of every group that has an anchor becomes the anchor.

    After `append_row` that slot is empty, and no rollout is lost to the anchor.
    """
    last_P = torch.full_like(state.anchor_slot_P, state.rewards_PG.shape[1] - 1)
    return _place(state, last_P, state.has_anchor_P)


def inject_target(state: GroupState) -> GroupState:
    """Supervision: an anchor in every group, in the slot whose loss costs least: not valid, else a hit, else lowest score.

    A hit goes before a miss, so every miss of a group with a hit stays available as a negative. Without structural
    scores all misses count alike.
    """
    score = torch.zeros_like(state.rewards_PG) if state.structural_PG is None else state.structural_PG
    return _place(state, _cheapest_row(state, score.masked_fill(state.hits_PG, -0.5)), state.has_anchor_P)


def inject_all_zero(state: GroupState) -> GroupState:
    """An anchor in every group without a hit, blind to scores: in the first row that is not valid, else the tie rule's.

    For constructors that keep only the anchor there, so that no row is lost to it.
    """
    slot_P = _cheapest_row(state, torch.zeros_like(state.rewards_PG))
    return _place(state, slot_P, state.has_anchor_P & ~state.any_hit_P())


def choose_anchor(
    target_mask_PT: Tensor,
    rule: AnchorChoice = "first",
    logprob_PT: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Target of each prompt that serves as its anchor: int64 (P,), -1 where a prompt has none.

    Args:
        target_mask_PT: bool, true for real targets.
        rule: "first", "random" (needs `generator`) or "most_likely" (needs `logprob_PT`, the policy's log-probabilities).

    Raises:
        SignalError: an unknown rule, or its input is missing, of another shape or NaN.
    """
    if rule not in get_args(AnchorChoice):
        raise SignalError(f"rule: {rule!r} must be one of {', '.join(get_args(AnchorChoice))}")
    if rule == "first":
        key = torch.zeros(target_mask_PT.shape, device=target_mask_PT.device)
    elif rule == "random":
        if generator is None:
            raise SignalError("generator: missing; anchor_choice 'random' needs an explicit torch.Generator")
        key = drawn(target_mask_PT, generator)
    elif logprob_PT is None:
        raise SignalError("logprob_PT: missing; anchor_choice 'most_likely' needs the targets' log-probabilities")
    else:
        shaped(logprob_PT, "logprob_PT", target_mask_PT.shape)
        if bool((bad := target_mask_PT & logprob_PT.isnan()).any()):
            raise SignalError(f"logprob_PT: prompt {int(bad.any(1).nonzero()[0])} has a log-probability that is nan")
        key = logprob_PT.clamp(min=torch.finfo(logprob_PT.dtype).min)  # an impossible target still beats no target
    return torch.where(target_mask_PT.any(1), key.masked_fill(~target_mask_PT, -torch.inf).argmax(1), -1)


def _cheapest_row(state: GroupState, score_PG: Tensor) -> Tensor:
    return pick_cheapest(state, score_PG.masked_fill(~state.valid_PG, -1.0))


def _place(state: GroupState, slot_P: Tensor, where_P: Tensor) -> GroupState:
    """Anchors in some groups; one that has an anchor already keeps it where it is."""
    where_P = where_P & (state.anchor_slot_P < 0)
    at_N = flat_rows(slot_P, groups_where(where_P), state.rewards_PG.shape[1])

    def filled(table_PG: Tensor, value: float) -> Tensor:
        return table_PG.reshape(-1).index_fill(0, at_N, value).view(table_PG.shape)

    sids_PGL = state.sids_PGL
    if sids_PGL is not None and state.anchor_sids_PL is not None:
        anchors_NL = state.anchor_sids_PL[where_P]
        sids_PGL = sids_PGL.flatten(0, 1).index_copy(0, at_N, anchors_NL).view(sids_PGL.shape)
    return replace(
        state,
        rewards_PG=filled(state.rewards_PG, state.config.anchor_reward),
        structural_PG=None if state.structural_PG is None else filled(state.structural_PG, 1.0),
        valid_PG=filled(state.valid_PG, True),
        active_PG=filled(state.active_PG, True),
        anchor_slot_P=torch.where(where_P, slot_P, state.anchor_slot_P),
        sids_PGL=sids_PGL,
    )
