"""Step 2 of 3, on graded rewards: numbers from rewards that tell misses apart; task rewards and regimes stay as they are.

Axes: P prompts, G rollouts, L levels of a semantic ID.
"""

from dataclasses import replace

import torch

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.advantage import standardised
from recast_sim.signal.steps.levels import target_matches


def deepest_match(state: GroupState) -> GroupState:
    """SINGER's reward (OpenReview zw0IMYPLQZ), our reading: grpo on the share of levels that match a target from the first on.

    The task reward itself is not changed, so regimes stay those of exact hits. A row-level number.

    Raises:
        SignalError: no `sids_PGL` or `targets_PTL`.
    """
    graded = standardised(replace(state, rewards_PG=target_matches(state).mean(2) * state.valid_PG))
    return replace(state, advantages_PG=graded.advantages_PG)


def confidence_weighted_misses(state: GroupState) -> GroupState:
    """LENS (arXiv 2510.08696): a miss has a negative reward by its confidence, then grpo; all-zero groups at lens_alpha.

    With q = pi(row)^(1/L), a miss has the reward -(1/n) q / (D - q). D is 2 max q in a group without a hit, which is only
    centred and weighed by lens_alpha; elsewhere the larger of 2 max q and 1 / mean(r / pi), and the group is standardised.
    Because it is centred, an unlikely miss of an all-zero group is pushed up. Hits count 1.

    Raises:
        SignalError: no `logprob_PG` or `sids_PGL` (for L).
    """
    logprob_PG = state.given("logprob_PG", "weighs misses by their probability")
    L = state.given("sids_PGL", "needs the number of levels; pass the codes of the semantic IDs").shape[2]
    hits, active = state.hits_PG.to(logprob_PG.dtype), state.active_PG
    n = active.sum(1, keepdim=True).clamp(min=1)
    q = (logprob_PG / L).exp() * active
    importance = (hits * (-logprob_PG).exp()).sum(1, keepdim=True) / n
    D = torch.maximum(2 * q.amax(1, keepdim=True), torch.where(importance > 0, 1 / importance, 0.0))
    shaped = replace(state, rewards_PG=torch.where(state.hits_PG, 1.0, -q / (D - q) / n).masked_fill(~active, 0.0))
    mean = shaped.rewards_PG.sum(1, keepdim=True) / n
    centred_PG = state.config.lens_alpha * (shaped.rewards_PG - mean) * active
    return replace(state, advantages_PG=torch.where(hits.any(1, keepdim=True), standardised(shaped).advantages_PG, centred_PG))


def exponential_rewards(state: GroupState) -> GroupState:
    """Exponential reward weighting (arXiv 2603.10279): exp((r - 1) / reward_temperature) on every active row.

    So a hit has 1 and a miss exp(-1 / reward_temperature): the misses are imitated too, though less.

    Raises:
        SignalError: a reward so large that its exponential overflows.
    """
    gap_PG = (state.rewards_PG - 1) / state.config.reward_temperature
    if bool((bad := (gap_PG > 80) & state.active_PG).any()):
        p, g = bad.nonzero()[0].tolist()
        reward = float(state.rewards_PG[p, g])
        raise SignalError(f"rewards_PG: prompt {p}, rollout {g} is {reward:g}; raise reward_temperature or rescale the rewards")
    return replace(state, advantages_PG=gap_PG.exp().masked_fill(~state.active_PG, 0.0))
