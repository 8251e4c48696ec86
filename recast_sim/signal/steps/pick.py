"""One row of a group, or several: the best-scored among some of them, ties broken by the config's rule."""

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.reductions import flags, highest, lowest
from recast_sim.signal.signal_config import SignalError


def pick_hit(state: GroupState) -> Tensor:
    """Row of each group's hit with the highest reward by the config's tie rule: int64 (P,), -1 where there is none."""
    if state.config.tie_rule != "first":
        return _pick_tied(state, state.rewards_PG, state.hits_PG)
    best_P, row_P = highest(torch.Tensor.detach, state.valid_rewards())
    return row_P.masked_fill_(best_P <= state.config.hit_above, -1)


def pick_miss(state: GroupState, score_PG: Tensor) -> Tensor:
    """Row of each group's best-scored miss, likewise. Scores are finite and far from the ends of their dtype's range."""
    if state.config.tie_rule != "first":
        return _pick_tied(state, score_PG, state.misses_PG)
    limit, out_of_reach = state.config.hit_above, torch.finfo(score_PG.dtype).max

    def of_misses(score: Tensor, rewards: Tensor) -> Tensor:
        hits = flags(torch.gt, rewards, limit)
        return torch.add(score, hits, alpha=-out_of_reach, out=hits)

    score_PG = score_PG.masked_fill(~state.valid_PG, -out_of_reach)
    best_P, row_P = highest(of_misses, score_PG, state.rewards_PG)
    return row_P.masked_fill_(best_P < -out_of_reach / 2, -1)


def pick_cheapest(state: GroupState, cost_PG: Tensor) -> Tensor:
    """Row of each group's lowest cost, likewise; valid or not."""
    if state.config.tie_rule != "first":
        return _pick_tied(state, -cost_PG, torch.ones_like(state.valid_PG))
    return lowest(cost_PG)[1]


def pick_best(state: GroupState, score_PG: Tensor, candidates_PG: Tensor, count: int) -> Tensor:
    """Bool (P, G): the `count` best-scored candidates of each group, all where there are fewer; ties by the config's rule."""
    key = torch.zeros_like(score_PG) if state.config.tie_rule == "first" else _tie_key(state)
    order = key.argsort(dim=1, descending=True, stable=True)
    masked = score_PG.masked_fill(~candidates_PG, -torch.inf).gather(1, order)
    order = order.gather(1, masked.argsort(dim=1, descending=True, stable=True))
    return candidates_PG & (order.argsort(dim=1) < count)


def rows_mask(index_P: Tensor, width: int) -> Tensor:
    """Bool (P, width): true at each prompt's row `index_P`, nowhere where it is -1."""
    return torch.arange(width, device=index_P.device) == index_P[:, None]


def drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers of the shape and device of `like`, drawn where the generator is: the same on every device."""
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)


def _pick_tied(state: GroupState, score_PG: Tensor, candidates_PG: Tensor) -> Tensor:
    masked = score_PG.masked_fill(~candidates_PG, -torch.inf)
    tied = candidates_PG & (masked == masked.amax(1, keepdim=True))
    return torch.where(
        candidates_PG.any(1), highest(torch.Tensor.detach, _tie_key(state).masked_fill(~tied, -torch.inf))[1], -1
    )


def _tie_key(state: GroupState) -> Tensor:
    if state.config.tie_rule == "random":
        if state.generator is None:
            raise SignalError("generator: missing; tie_rule 'random' needs an explicit torch.Generator")
        return drawn(state.rewards_PG, state.generator)
    if state.logprob_PG is None:
        raise SignalError("logprob_PG: missing; tie_rule 'highest_logprob' needs the rollouts' log-probabilities")
    return state.logprob_PG
