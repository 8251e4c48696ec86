"""Step 2 of 3, one against several: a positive row and the K hardest misses of its group, 0 for every other row."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.anchor_weight import anchor_logprob, checked_logprob
from recast_sim.signal.steps.pick import pick_best, pick_hit, pick_miss, rows_mask


def anchored_subgroup(state: GroupState) -> GroupState:
    """CARE's subgroup (arXiv 2512.19554; its code): z-scores among the best hit and its K' <= care_negatives hardest misses.

    Rewards 1 and 0, population std + std_eps, negatives times care_scale, everything times sqrt(care_negatives / K'). A
    group without a hit is rescued: its likeliest miss takes the hit's place with reward care_delta against
    -care_delta / K' (the z-score cancels care_delta but for std_eps, so this is no small signal). Where no miss is left the
    group gets nothing. The source takes the hit with the shortest rationale and the misses nearest to it in embedding
    space; here the best hit by the tie rule and the highest structural scores.

    Raises:
        SignalError: no log-probabilities.
    """
    if state.logprob_PG is None:
        raise SignalError("logprob_PG: missing; this constructor rescues the likeliest miss of an all-zero group")
    rescued = ~state.any_hit_P()
    likeliest_P = pick_miss(state, state.logprob_PG)
    positive_P = torch.where(rescued, likeliest_P, pick_hit(state))
    positive = rows_mask(positive_P, state.rewards_PG.shape[1])
    negative = pick_best(state, state.scores_PG(), state.misses_PG & ~positive, state.config.care_negatives)
    K = negative.sum(1, keepdim=True).to(state.rewards_PG.dtype)
    delta = torch.full_like(K, state.config.care_delta)
    high = torch.where(rescued[:, None], delta, 1.0)
    low = torch.where(rescued[:, None], -delta / K.clamp(min=1), 0.0)
    return _z_scored(state, positive, negative, high, low, K)


def softmax_preference(state: GroupState) -> GroupState:
    """S-DPO (arXiv 2406.09215): minus the gradient of -log sigma(-log sum_j exp(beta (d_j - d_anchor))) in each log pi.

    d = log pi - log reference, j runs over the `sdpo_negatives` hardest misses. With s = sigma(log sum_j ...) the anchor gets
    +beta s and negative j -beta s softmax_j(beta d); at pi = reference with N negatives +beta N / (N + 1) and -beta / (N + 1).
    A group without an anchor or without a miss gets nothing.

    Raises:
        SignalError: one of the four log-probabilities is missing.
    """
    anchored = (state.anchor_slot_P >= 0)[:, None]
    negative = pick_best(state, state.scores_PG(), state.misses_PG & anchored, state.config.sdpo_negatives)
    anchor_gap_P, gap_PG = _log_ratios(state)
    margin = (state.config.sdpo_beta * (gap_PG - anchor_gap_P[:, None])).masked_fill(~negative, -torch.inf)
    weight = state.config.sdpo_beta * margin.logsumexp(1, keepdim=True).sigmoid()
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    share = margin.softmax(1).nan_to_num(0.0)  # a group without negatives has no softmax
    return replace(
        state,
        advantages_PG=weight * (anchor.to(weight.dtype) - share),
        positive_P=torch.where(negative.any(1), state.anchor_slot_P, -1),
    )


def _z_scored(state: GroupState, positive: Tensor, negative: Tensor, high: Tensor, low: Tensor, K: Tensor) -> GroupState:
    config = state.config
    mean = (high + K * low) / (K + 1)
    std = (((high - mean).square() + K * (low - mean).square()) / (K + 1)).sqrt() + config.std_eps
    size = (config.care_negatives / K.clamp(min=1)).sqrt() * (K > 0)
    numbers = torch.where(positive, high - mean, config.care_scale * (low - mean)) / std * size
    return replace(
        state,
        advantages_PG=numbers.masked_fill(~(positive | negative), 0.0),
        positive_P=torch.where((K > 0)[:, 0] & positive.any(1), positive.int().argmax(1), -1),
    )


def _log_ratios(state: GroupState) -> tuple[Tensor, Tensor]:
    """log pi - log reference of the anchor (P,) and of each row (P, G)."""
    for name in ("logprob_PG", "reference_logprob_PG", "anchor_reference_logprob_P"):
        if getattr(state, name) is None:
            raise SignalError(f"{name}: missing; this constructor compares the policy with its reference")
    assert state.logprob_PG is not None
    assert state.reference_logprob_PG is not None
    assert state.anchor_reference_logprob_P is not None
    reference_P = checked_logprob(state, state.anchor_reference_logprob_P, "anchor_reference_logprob_P")
    return anchor_logprob(state) - reference_P, state.logprob_PG - state.reference_logprob_PG
