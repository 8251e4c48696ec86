"""Step 2 of 3, by level: how much each level of a row's semantic ID (SID) is moved, and masks that leave some levels out.

A mask stands behind an advantage, of whatever constructor: `mask_shared_prefix(recast(state))`. Axes: P prompts, G rollouts,
L levels, level 0 is the first code.
"""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.steps.pick import rows_mask
from recast_sim.signal.structural import level_matches

_WHY = "compares rollouts level by level; pass the codes of their semantic IDs"


def by_level(state: GroupState, advantages_PGL: Tensor) -> GroupState:
    """The state with a number for each level; `advantages_PG` becomes the mean over the levels."""
    return replace(state, advantages_PGL=advantages_PGL, advantages_PG=advantages_PGL.mean(2))


def on_levels(state: GroupState, factor_PGL: Tensor) -> GroupState:
    """The state with its advantages, a row's or its levels', times a factor a level."""
    table = state.advantages_PG[..., None] if state.advantages_PGL is None else state.advantages_PGL
    return by_level(state, table * factor_PGL)


def mask_shared_prefix(state: GroupState) -> GroupState:
    """A pushed-down row keeps no number on the levels that it shares with a pushed-up row of its group.

    On them the two gradients would cancel; so the positive's stays (the idea of RAD-DPO, arXiv 2602.23964). Rows without a
    negative number stay as they are.

    Raises:
        SignalError: no `sids_PGL`.
    """
    shared_PG = _shared_with_positives(state)
    return _on_pushed_down(state, _level_numbers(state) >= shared_PG[..., None])


def only_diverging_level(state: GroupState) -> GroupState:
    """A pushed-down row keeps its number on one level alone, the first on which it leaves every pushed-up row of its group.

    Without a pushed-up row that is the first level. Rows without a negative number stay as they are.

    Raises:
        SignalError: no `sids_PGL`.
    """
    shared_PG = _shared_with_positives(state)
    return _on_pushed_down(state, _level_numbers(state) == shared_PG[..., None])


def from_first_missed_level(state: GroupState) -> GroupState:
    """An anchor keeps its number from the first level on that no sampled row of its group reached.

    A level is reached where a valid row shares the anchor's codes up to it. Other rows stay as they are.

    Raises:
        SignalError: no `sids_PGL`.
    """
    anchor_PG = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    sampled_PG = state.valid_PG & ~anchor_PG
    reached_PG = _shared_prefix(state, sampled_PG).masked_fill(~anchor_PG, 0)
    return on_levels(state, (_level_numbers(state) >= reached_PG[..., None]).to(state.rewards_PG.dtype))


def skip_given_levels(state: GroupState, given: int) -> GroupState:
    """No number on the first `given` levels of sampled rows, whose codes they were given (prefix hints); anchors keep theirs.

    Raises:
        SignalError: no `sids_PGL`.
    """
    anchor_PG1 = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])[..., None]
    return on_levels(state, ((_level_numbers(state) >= given) | anchor_PG1).to(state.rewards_PG.dtype))


def target_matches(state: GroupState) -> Tensor:
    """1 where a row shares the codes of one of its prompt's targets up to a level, float (P, G, L).

    Raises:
        SignalError: no `sids_PGL` or no `targets_PTL`.
    """
    sids_PGL, targets_PTL = state.given("sids_PGL", _WHY), state.given("targets_PTL", _WHY)
    return level_matches(sids_PGL, targets_PTL).to(state.rewards_PG.dtype)


def _on_pushed_down(state: GroupState, kept_PGL: Tensor) -> GroupState:
    pushed_PG1 = (state.advantages_PG < 0)[..., None]
    return on_levels(state, (kept_PGL | ~pushed_PG1).to(state.rewards_PG.dtype))


def _level_numbers(state: GroupState) -> Tensor:
    sids_PGL = state.given("sids_PGL", _WHY)
    return torch.arange(sids_PGL.shape[2], device=sids_PGL.device)


def _shared_with_positives(state: GroupState) -> Tensor:
    return _shared_prefix(state, (state.advantages_PG > 0) & state.active_PG)


def _shared_prefix(state: GroupState, others_PG: Tensor) -> Tensor:
    """The longest prefix, 0..L, that each row shares with any of the `others_PG` of its group: int64 (P, G)."""
    sids_PGL = state.given("sids_PGL", _WHY)
    longest_PG = torch.zeros(sids_PGL.shape[:2], dtype=torch.int64, device=sids_PGL.device)
    for g in others_PG.any(0).nonzero()[:, 0].tolist():  # few rows are pushed up or are anchors
        alike_PGL = (sids_PGL == sids_PGL[:, g : g + 1]).cumprod(2)
        longest_PG = torch.maximum(longest_PG, alike_PGL.sum(2).masked_fill(~others_PG[:, g : g + 1], 0))
    return longest_PG
