"""Step 2 of 3: numbers for the rows. Statistics run over a group's active rows; every other row gets 0.

With K hits among n active rows of a group, m = K / n is the mean reward in the binary case.
"""

import torch
from torch import Tensor

from recast_sim.signal.config import SignalError
from recast_sim.signal.state import GroupState, pick, rows_mask


def centred(state: GroupState) -> GroupState:
    """Dr. GRPO (arXiv 2503.20783): r - m."""
    return state.with_(advantages_PG=_deviation(state)[0])


def standardised(state: GroupState) -> GroupState:
    """GRPO (arXiv 2402.03300): (r - m) / (std + eps), `std_ddof` and `std_eps` of the config.

    A group with one active row gets 0, or its raw reward where `singleton` is "raw" (verl).
    """
    deviation, _, n = _deviation(state)
    variance = deviation.square().sum(1, keepdim=True) / (n - state.config.std_ddof).clamp(min=1)
    advantages = deviation / (variance.sqrt() + state.config.std_eps)
    if state.config.singleton == "raw":
        advantages = torch.where((n == 1) & state.active_PG, state.rewards_PG, advantages)
    return state.with_(advantages_PG=advantages)


def leave_one_out(state: GroupState) -> GroupState:
    """RLOO (arXiv 2402.14740): r minus the mean of the other rows, which is n / (n - 1) (r - m); 0 where n = 1."""
    deviation, _, n = _deviation(state)
    return state.with_(advantages_PG=deviation * (n / (n - 1).clamp(min=1)))


def mean_scaled(state: GroupState) -> GroupState:
    """MaxRL (arXiv 2602.02710): (r - m) / (m + eps); 0 for a group without reward.

    Raises:
        SignalError: a reward below 0, for which dividing by the mean has no meaning.
    """
    if bool((bad := (state.rewards_PG < 0) & state.active_PG).any()):
        raise SignalError(f"rewards_PG: prompt {int(bad.any(1).nonzero()[0])} has a reward below 0; max_rl needs 0 or more")
    deviation, mean, _ = _deviation(state)
    scale = torch.where(mean == 0, torch.inf, mean + state.config.mean_eps)
    return state.with_(advantages_PG=deviation / scale)


def boundary_contrast(state: GroupState) -> GroupState:
    """ReCast's pair (arXiv 2604.22169): +w_plus on the best hit, -w_minus on the valid miss with the highest score.

    A group without a hit or without a valid miss gets nothing.
    """
    positive_P = pick(state, state.rewards_PG, state.hits_PG)
    negative_P = pick(state, state.scores_PG(), state.misses_PG)
    both = (positive_P >= 0) & (negative_P >= 0)
    return _pair(state, torch.where(both, positive_P, -1), torch.where(both, negative_P, -1))


def anchor_alone(state: GroupState) -> GroupState:
    """Supervised gradient: +w_plus on the anchor, nothing else."""
    return _pair(state, state.anchor_slot_P, torch.full_like(state.anchor_slot_P, -1))


def anchor_against_hardest(state: GroupState) -> GroupState:
    """Supervision with one on-policy hard negative: +w_plus on the anchor, -w_minus on the hardest miss, if any."""
    hardest_P = pick(state, state.scores_PG(), state.misses_PG)
    return _pair(state, state.anchor_slot_P, torch.where(state.anchor_slot_P >= 0, hardest_P, -1))


def _pair(state: GroupState, positive_P: Tensor, negative_P: Tensor) -> GroupState:
    width = state.rewards_PG.shape[1]
    if state.config.w_minus == 0:
        negative_P = torch.full_like(negative_P, -1)
    plus, minus = rows_mask(positive_P, width), rows_mask(negative_P, width)
    advantages = torch.zeros_like(state.rewards_PG)
    advantages = advantages.masked_fill(plus, state.config.w_plus).masked_fill(minus, -state.config.w_minus)
    return state.with_(advantages_PG=advantages, positive_P=positive_P, negative_P=negative_P)


def _deviation(state: GroupState) -> tuple[Tensor, Tensor, Tensor]:
    """r - m over the active rows, m, and n. Exactly 0 where all rewards of a group are equal, whatever the rounding."""
    active, rewards = state.active_PG, state.rewards_PG
    n = active.sum(1, keepdim=True).to(rewards.dtype)
    mean = rewards.masked_fill(~active, 0.0).sum(1, keepdim=True) / n.clamp(min=1)
    varied = has_variance(state)[:, None]
    return torch.where(active & varied, rewards - mean, 0.0), mean, n


def has_variance(state: GroupState) -> Tensor:
    """Bool (P,): the active rows of the group have at least two different rewards."""
    high = state.rewards_PG.masked_fill(~state.active_PG, -torch.inf).amax(1)
    low = state.rewards_PG.masked_fill(~state.active_PG, torch.inf).amin(1)
    return high > low
