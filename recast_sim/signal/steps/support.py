"""Step 3 of 3: which rows are kept. Rows outside the support are gone before old, reference and actor passes.

A support step may also stand before the advantage step, which then counts only the rows that were kept (pods).
"""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.advantage import has_variance

_ROUNDING = 1e-9  # variances that differ by no more, relatively, are equal


def keep_nonzero(state: GroupState) -> GroupState:
    """Keep the rows whose advantage is not 0, on any level (search-update decoupling of arXiv 2604.22169).

    A positive or negative whose row goes is one no more.
    """
    kept_PG = state.active_PG & state.moved_PG

    def still(slot_P: Tensor) -> Tensor:
        return slot_P.masked_fill(~kept_PG.gather(1, slot_P.clamp(min=0)[:, None])[:, 0], -1)

    return replace(state, active_PG=kept_PG, positive_P=still(state.positive_P), negative_P=still(state.negative_P))


def keep_varied_groups(state: GroupState) -> GroupState:
    """DAPO's dynamic sampling (arXiv 2503.14476): drop groups whose rewards are all equal and ask for a redraw."""
    varied = has_variance(state)
    return replace(state, active_PG=state.active_PG & varied[:, None], redraw_P=~varied)


def keep_first_two(state: GroupState) -> GroupState:
    """The first two active rows of each group, which is a group of two wherever rollouts are exchangeable."""
    return replace(state, active_PG=state.active_PG & (state.active_PG.cumsum(1) <= 2))


def keep_max_variance(state: GroupState) -> GroupState:
    """PODS (arXiv 2504.13818): the `pods_width` rows of each group whose rewards have the largest variance.

    The best subset is always some lowest and some highest rewards, so every split is tried; of equal rewards the low side
    takes the first rows and the high side the last. Groups with no more than `pods_width` valid rows are kept whole.

    Raises:
        SignalError: `pods_width` is not below the group size.
    """
    width, G = state.config.pods_width, state.rewards_PG.shape[1]
    if width >= G:
        raise SignalError(f"pods_width: {width} must be below the group size {G}")
    order = state.rewards_PG.masked_fill(~state.active_PG, torch.inf).argsort(dim=1, stable=True)
    n = state.active_PG.sum(1)
    offset = state.rewards_PG.double() - state.rewards_PG[:, :1]  # small numbers, so that squares keep their digits
    high_P = _best_split(offset.masked_fill(~state.active_PG, 0.0).gather(1, order), n, width)
    rank = torch.arange(G, device=order.device)
    low, top = rank < (width - high_P)[:, None], (rank >= (n - high_P)[:, None]) & (rank < n[:, None])
    kept = torch.zeros_like(state.active_PG).scatter(1, order, low | top | (n <= width)[:, None])
    return replace(state, active_PG=state.active_PG & kept)


def _best_split(sorted_PG: Tensor, n_P: Tensor, width: int) -> Tensor:
    """How many of the `width` kept rows come from the top: the smallest count of the largest variance, int64 (P,)."""
    zero = sorted_PG.new_zeros(sorted_PG.shape[0], 1)
    totals = [torch.cat([zero, power.cumsum(1)], 1) for power in (sorted_PG, sorted_PG.square())]
    high = torch.arange(width + 1, device=n_P.device).expand(len(n_P), -1)
    cut = (n_P[:, None] - high).clamp(min=0)
    first, second = (t.gather(1, width - high) + t.gather(1, n_P[:, None]) - t.gather(1, cut) for t in totals)
    variance = second / width - (first / width).square()
    return (variance >= variance.amax(1, keepdim=True) * (1 - _ROUNDING)).int().argmax(1)
