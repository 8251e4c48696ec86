"""Groups that no reward function scored, or that one gave an infinity: they are left out of the signal, as if never drawn.

TRL's own trainer goes on with such groups; a constructor would take a made-up reward for a miss.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal import Signal
from recast_sim.signal.group_state import GroupState

_NONE_IS: dict[str, int] = dict.fromkeys(("anchor_slot_P", "positive_P", "negative_P"), -1)


def scored_groups(rewards_RF: Tensor, group_size: int) -> Tensor:
    """Bool (P,): groups with a row that some reward function scored, and without an infinite reward."""
    scored_R, infinite_R = ~rewards_RF.isnan().all(1), rewards_RF.isinf().any(1)
    return scored_R.view(-1, group_size).any(1) & ~infinite_R.view(-1, group_size).any(1)


def signal_of_scored(scored_P: Tensor, build: Callable[[Tensor], Signal]) -> Signal:
    """The signal over all groups of what `build` makes of those at the indices that it is given.

    A group that is left out has no row in the plan, no anchor and no advantage. Where no group is left, `build` gets the first
    one, whose rows are then left out too.
    """
    at_K = scored_P.nonzero()[:, 0]
    found = build(at_K if len(at_K) else torch.zeros(1, dtype=torch.int64))
    if len(at_K) == len(scored_P):
        return found
    P, G = len(scored_P), found.group_size
    plan = found.plan if len(at_K) else found.plan.take(torch.zeros(0, dtype=torch.int64))
    rows_N = at_K[plan.rows_N // G] * G + plan.rows_N % G if len(at_K) else plan.rows_N

    def over_all(table: Tensor, empty: float = 0) -> Tensor:
        whole = table.new_full((P, *table.shape[1:]), empty)
        whole[at_K] = table[: len(at_K)]
        return whole

    def state(part: GroupState) -> GroupState:
        tables = {f.name: getattr(part, f.name) for f in fields(part)}
        spread: dict[str, Any] = {
            name: over_all(table, _NONE_IS.get(name, 0)) for name, table in tables.items() if isinstance(table, Tensor)
        }
        return replace(part, **spread)

    counts = {name: over_all(getattr(found, name)) for name in ("learnable_P", "hits_before_P", "hits_after_P")}
    return replace(found, before=state(found.before), after=state(found.after), plan=replace(plan, rows_N=rows_N), **counts)
