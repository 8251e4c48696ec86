"""Step 2 of 3, mixed: the sampled rows' numbers beside supervision on the anchor's row."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.steps.anchor_weight import anchor_logprob, mixture_factor
from recast_sim.signal.steps.pick import rows_mask


def with_anchor_likelihood(state: GroupState, weight: float) -> GroupState:
    """The rows' numbers, and `weight` n on the anchor's row, n being the other active rows: so both losses are means."""
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    n_P1 = (state.active_PG & ~anchor).sum(1, keepdim=True).to(state.rewards_PG.dtype)
    return replace(state, advantages_PG=torch.where(anchor, weight * n_P1, state.advantages_PG))


def with_list_of_misses(state: GroupState) -> GroupState:
    """Supervision on the anchor, and a softmax over the anchor and the group's misses, of which the anchor should be the best.

    With w the softmax of log pi over the two, detached: 1 + listwise_weight (1 - w_anchor) on the anchor's row,
    -listwise_weight w on every miss, 0 on hits, which the anchor stands for. It trains the joint score that a beam sorts by,
    where levels are normalised one by one; meant for distinct misses, of a beam. A group without an anchor gets 0.

    Raises:
        SignalError: no `logprob_PG` or no `anchor_logprob_P`.
    """
    anchor_PG, list_PG = _list_of_misses(state)
    return replace(state, advantages_PG=anchor_PG + list_PG)


def supervision_list_and_hits(state: GroupState) -> GroupState:
    """Supervision by log(pi + mixture_gamma), the softmax over the anchor and the misses, and the group's own hits. Ours.

    The supervised part on the anchor's row is pi / (pi + mixture_gamma) times 1 - hit_share, and w_anchor hit_share more in a
    group without a hit; a hit gets hit_share times its reward; the list is that of `with_list_of_misses`. At hit_share 0,
    mixture_gamma 0 and listwise_weight 0 it is plain supervision, at hit_share 1 and both others 0 hits_light_anchor.

    Raises:
        SignalError: no `logprob_PG` or no `anchor_logprob_P`.
    """
    share = state.config.hit_share
    anchor_PG, list_PG = _list_of_misses(state)
    hits_PG = state.hits_PG & ~anchor_PG
    light_P = share * state.config.w_anchor * ~hits_PG.any(1)
    supervised_P = mixture_factor(state) * (1 - share + light_P)
    numbers_PG = supervised_P[:, None] * anchor_PG + list_PG + torch.where(hits_PG, share * state.rewards_PG, 0.0)
    idle_PG = anchor_PG & (numbers_PG == 0)  # an anchor that would get nothing is not there
    return replace(
        state,
        rewards_PG=state.rewards_PG.masked_fill(idle_PG, 0.0),
        valid_PG=state.valid_PG & ~idle_PG,
        active_PG=state.active_PG & ~idle_PG,
        anchor_slot_P=state.anchor_slot_P.masked_fill(idle_PG.any(1), -1),
        advantages_PG=numbers_PG,
        anchor_weight_P=torch.ones_like(supervised_P),
    )


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


def _list_of_misses(state: GroupState) -> tuple[Tensor, Tensor]:
    """Which row is the anchor's, and the numbers of the softmax over the anchor and the misses, (P, G) each."""
    anchor_PG, weight = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1]), state.config.listwise_weight
    logprob_PG = torch.where(anchor_PG, anchor_logprob(state)[:, None], state.given("logprob_PG", "lists the misses by it"))
    listed_PG = anchor_PG | (state.misses_PG & (state.anchor_slot_P >= 0)[:, None])
    lowest = torch.finfo(logprob_PG.dtype).min / 2
    share_PG = logprob_PG.clamp(min=lowest).masked_fill(~listed_PG, -torch.inf).softmax(1).masked_fill(~listed_PG, 0.0)
    return anchor_PG, weight * (anchor_PG.to(share_PG.dtype) - share_PG)
