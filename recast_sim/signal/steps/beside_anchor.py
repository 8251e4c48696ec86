"""Step 2 of 3, mixed: the sampled rows' numbers beside supervision on the anchor's row."""

from dataclasses import replace

import torch

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.steps.anchor_weight import anchor_logprob
from recast_sim.signal.steps.pick import rows_mask


def with_anchor_likelihood(state: GroupState, weight: float) -> GroupState:
    """The rows' numbers, and `weight` n on the anchor's row, n being the other active rows: so both losses are means."""
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    n_P1 = (state.active_PG & ~anchor).sum(1, keepdim=True).to(state.rewards_PG.dtype)
    return replace(state, advantages_PG=torch.where(anchor, weight * n_P1, state.advantages_PG))


def gated_by_difficulty(state: GroupState) -> GroupState:
    """AdaGRPO's gate (arXiv 2606.08480), our reading: a group keeps its numbers where the policy ranks its target low.

    That is where at least the share ada_tau of its sampled rows is likelier than the anchor, and in a group without an
    anchor; elsewhere the sampled rows get 0. The paper's second gate asks whether the reward tells the target from others,
    which an exact hit always does.

    Raises:
        SignalError: no `logprob_PG` or no `anchor_logprob_P`.
    """
    logprob_PG = state.given("logprob_PG", "ranks the target among the rollouts")
    sampled = state.active_PG & ~rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    likelier = (logprob_PG > anchor_logprob(state)[:, None]) & sampled
    hard_P1 = likelier.sum(1, keepdim=True) >= state.config.ada_tau * sampled.sum(1, keepdim=True)
    hard_P1 |= (state.anchor_slot_P < 0)[:, None]
    return replace(state, advantages_PG=state.advantages_PG * hard_P1)
