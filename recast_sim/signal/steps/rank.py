"""Step 2 of 3, by rank: numbers that depend on the order of a group's rows by their log-probability, likeliest first."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.advantage import standardised


def rank_penalised(state: GroupState) -> GroupState:
    """ReRe's ranking reward (arXiv 2510.12211; MiniOneRec's code), then grpo.

    In a group with a hit a miss at rank j (0 the likeliest of the n rows) loses rank_weight * d_j / sum of d of its reward,
    with d_j = 1 / log2(j + 2); hits keep theirs, groups without a hit theirs too. The task reward itself is not changed.
    """
    discount = 1 / (likelihood_rank(state, state.active_PG).to(state.rewards_PG.dtype) + 2).log2()
    discount = discount.masked_fill(~state.active_PG, 0.0)
    penalty = state.config.rank_weight * discount / discount.sum(1, keepdim=True)
    penalised = state.misses_PG & state.hits_PG.any(1, keepdim=True)
    shaped = replace(state, rewards_PG=state.rewards_PG - penalty.masked_fill(~penalised, 0.0))
    return replace(state, advantages_PG=standardised(shaped).advantages_PG)


def windowed(state: GroupState) -> GroupState:
    """Windowed partial AUC (arXiv 2604.22504), our reading: grpo with each miss weighed by a window over its rank.

    Of M misses the one at rank j (0 the likeliest) stands for the false-positive rates j/M to (j + 1)/M; its weight v_j is the
    share of them inside [window_low, window_low + window_span]. With K hits among n rows: a miss gets -K v_j / (n std), a hit
    sum of v / (n std), std as in grpo. Sums to 0; the window [0, 1] is grpo. Rewards count as hit or miss only.
    """
    hits, misses, config = state.hits_PG, state.misses_PG, state.config
    K, M = (mask.sum(1, keepdim=True).to(state.rewards_PG.dtype) for mask in (hits, misses))
    n, rank = K + M, likelihood_rank(state, misses).to(state.rewards_PG.dtype)
    above = torch.minimum(rank + 1, M * (config.window_low + config.window_span))
    inside = (above - torch.maximum(rank, M * config.window_low)).clamp(min=0).masked_fill(~misses, 0.0)
    std = (K * M / (n * (n - config.std_ddof).clamp(min=1))).sqrt() + config.std_eps
    pushed = torch.where(hits, inside.sum(1, keepdim=True), -K * inside)
    return replace(state, advantages_PG=torch.where(K * M > 0, pushed / (n * std), 0.0))


def likelihood_rank(state: GroupState, rows_PG: Tensor) -> Tensor:
    """Rank by log-probability within `rows_PG` of each group, 0 the likeliest, equal ones by row; rows outside come last.

    Raises:
        SignalError: no log-probabilities.
    """
    if state.logprob_PG is None:
        raise SignalError("logprob_PG: missing; this constructor ranks rollouts by it")
    order = state.logprob_PG.masked_fill(~rows_PG, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
