"""Step by step a constructor fills a `GroupState`; here its fields become an `UpdatePlan`, once they agree with each other."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.checks import as_tensor, shaped
from recast_sim.signal.group_state import GroupState
from recast_sim.signal.reductions import flat_rows, groups_where
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.anchor_weight import anchor_weight

_TABLES = {f.name: 2 if f.name.endswith("_PG") else 1 for f in fields(GroupState) if f.name.endswith(("_P", "_PG"))}
_SLOTS = ("anchor_slot_P", "positive_P", "negative_P")
_IS_MISS = torch.tensor([False, False, True])  # what the row of each slot is, else a hit


@dataclass(frozen=True)
class UpdatePlan:
    """The rows that the actor must see, N of them, and how their losses are summed.

    loss = sum over rows n and levels l of weights_N[n] * levelloss(advantages_NL[n, l]) / normaliser. Where `advantages_NL` has
    one column, every level of a row has the row's number.

    Attributes:
        rows_N: int64 flat indices into (P, G), that is p * G + g, ascending.
        advantages_NL: (N, 1), or (N, L) from a level-wise constructor.
        weights_N: factor on a row's loss; 1 but for anchors (`anchor_weighting`).
        anchor_N: bool, the row is an injected anchor, which no policy sampled.
        normaliser: the loss denominator by the config's rule; at least 1.
    """

    rows_N: Tensor
    advantages_NL: Tensor
    weights_N: Tensor
    anchor_N: Tensor
    normaliser: float

    @property
    def level_wise(self) -> bool:
        """Whether the levels of a row have numbers of their own."""
        return self.advantages_NL.shape[1] > 1

    @property
    def advantages_N(self) -> Tensor:
        """The rows' numbers, (N,). Raises SignalError for a level-wise plan, where a row has no one number."""
        if self.level_wise:
            raise SignalError("advantages_N: this plan is level-wise; read advantages_NL, one number a level")
        return self.advantages_NL[:, 0]

    @property
    def coefficients_NL(self) -> Tensor:
        """Factor on grad log pi of each level at the on-policy point: weights * advantages / normaliser, (N, 1) or (N, L)."""
        return self.weights_N[:, None] * self.advantages_NL / self.normaliser

    @property
    def coefficients_N(self) -> Tensor:
        """Factor on grad log pi of each row, (N,). Raises SignalError for a level-wise plan."""
        return self.weights_N * self.advantages_N / self.normaliser

    def take(self, rows: Tensor) -> "UpdatePlan":
        """Some of the rows, by mask or index; the normaliser stays the whole plan's."""
        return self._each(lambda column_N: column_N[rows])

    def to(self, device: torch.device) -> "UpdatePlan":
        """The plan on a device; nothing waits for the copy to one that is not the CPU."""
        return self._each(lambda column_N: column_N.to(device, non_blocking=device.type != "cpu"))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "UpdatePlan":
        columns = (field.name for field in fields(self) if field.name != "normaliser")
        return replace(self, **{name: change(getattr(self, name)) for name in columns})


def make_plan(before: GroupState, state: GroupState, length_PG: Any = None) -> UpdatePlan:
    """The plan of a state that a constructor returned for the groups `before`.

    Args:
        length_PG: tokens of each row, for normaliser "tokens": a number, or a table of the state's rows or of the rows before.

    Raises:
        SignalError: fields that contradict each other, naming the first bad prompt, or a bad length.
    """
    check_state(state)
    P, G = state.rewards_PG.shape
    rows = groups_where(state.active_PG.reshape(-1))
    table = state.advantages_PG[..., None] if state.advantages_PGL is None else state.advantages_PGL
    advantages = table.reshape(P * G, -1).index_select(0, rows)
    at_N = flat_rows(state.anchor_slot_P, groups_where(state.anchor_slot_P >= 0), G)
    anchor, weights = torch.zeros_like(rows, dtype=torch.bool), advantages.new_ones(len(rows))
    if len(at_N):
        anchor = anchor.new_zeros(P * G).index_fill_(0, at_N, True).index_select(0, rows)
        weight_P = anchor_weight(state, before)
        if weight_P is not None:
            weights = weights.new_ones(P * G).index_copy_(0, at_N, weight_P[at_N // G]).index_select(0, rows)
    return UpdatePlan(rows, advantages, weights, anchor, max(1.0, _normaliser(state, rows, length_PG)))


def check_state(state: GroupState) -> None:
    """Hold a state's fields against each other.

    Raises:
        SignalError: a table of another shape, or the first prompt whose fields contradict each other.
    """
    for name, axes in _TABLES.items():
        value: Tensor | None = getattr(state, name)
        if value is not None:
            shaped(value, name, state.rewards_PG.shape[:axes])
    if state.advantages_PGL is not None:
        shaped(state.advantages_PGL, "advantages_PGL", (*state.rewards_PG.shape, None))
    hit_PG, slot_P3 = state.hits_PG, torch.stack([getattr(state, name) for name in _SLOTS], 1)
    # A slot's row has to be active, where any row of its group is, and a hit, a hit and a miss. In a group without a hit a
    # positive may be a miss (care rescues one).
    at_P3 = slot_P3.clamp(0, hit_PG.shape[1] - 1)
    kept_P3 = state.active_PG.gather(1, at_P3) | ~state.active_PG.any(1, keepdim=True)
    is_hit_P3 = hit_PG.gather(1, at_P3) ^ _IS_MISS.to(hit_PG.device)
    is_hit_P3[:, 1] |= ~hit_PG.any(1)
    fits_P3 = kept_P3 & state.valid_PG.gather(1, at_P3) & is_hit_P3
    bad_P = ((slot_P3 != -1) & ~(fits_P3 & (slot_P3 == at_P3))).any(1) | ((slot_P3[:, 0] >= 0) & ~state.has_anchor_P)
    bad_P |= (state.active_PG & ~state.valid_PG).any(1)
    bad_P |= ~state.advantages_PG.sum(1).isfinite()
    if state.advantages_PGL is not None:
        bad_P |= (state.advantages_PG != state.advantages_PGL.mean(2)).any(1) | ~state.advantages_PGL.sum((1, 2)).isfinite()
    if bool(bad_P.any()):
        p = int(bad_P.nonzero()[0])
        raise SignalError(f"{_contradiction(state, p)}; let the constructor's steps return fields that agree")


def _contradiction(state: GroupState, p: int) -> str:
    """What is wrong with prompt `p`, in words."""
    G, active, hits = state.rewards_PG.shape[1], state.active_PG[p], state.hits_PG[p]
    for name in _SLOTS:
        slot = int(getattr(state, name)[p])
        if slot == -1:
            continue
        if not 0 <= slot < G:
            return f"{name}: prompt {p} has {slot}, but its rows are 0 to {G - 1}, and -1 stands for none"
        if bool(active.any()) and not bool(active[slot]):
            return f"{name}: prompt {p} names row {slot}, which active_PG leaves out, though it keeps others of the group"
        if name == "negative_P" and not bool(state.misses_PG[p, slot]):
            return f"{name}: prompt {p} names row {slot}, which is no miss (reward {float(state.rewards_PG[p, slot]):g})"
        rescued = name == "positive_P" and not bool(hits.any())
        if name != "negative_P" and not rescued and not bool(hits[slot]):
            return f"{name}: prompt {p} names row {slot}, which is no hit (reward {float(state.rewards_PG[p, slot]):g})"
    if int(state.anchor_slot_P[p]) >= 0 and not bool(state.has_anchor_P[p]):
        return f"anchor_slot_P: prompt {p} names row {int(state.anchor_slot_P[p])}, but has_anchor_P says it has no anchor"
    if bool((untrained := active & ~state.valid_PG[p]).any()):
        return f"active_PG: prompt {p} keeps row {int(untrained.nonzero()[0])}, which is not valid"
    table = state.advantages_PG if state.advantages_PGL is None else state.advantages_PGL
    if not bool(table[p].isfinite().all()) or not bool(state.advantages_PG[p].isfinite().all()):
        return f"advantages_PG: prompt {p} has {table[p].tolist()}, which must be finite"
    if state.advantages_PGL is not None and not torch.equal(state.advantages_PG[p], state.advantages_PGL[p].mean(1)):
        return f"advantages_PG: prompt {p} differs from the mean of advantages_PGL over the levels (by_level sets both)"
    return f"advantages_PG: prompt {p} has numbers whose sum is too large for {state.advantages_PG.dtype}"


def _normaliser(state: GroupState, rows_N: Tensor, length_PG: Any) -> float:
    P, G = state.rewards_PG.shape
    rule = state.config.normaliser
    if rule == "tokens":
        return float(_lengths(state, length_PG).reshape(-1)[rows_N].sum())
    return float({"groups": P, "active_rows": len(rows_N), "all_rows": P * G}[rule])


def _lengths(state: GroupState, length_PG: Any) -> Tensor:
    if length_PG is None:
        raise SignalError("length_PG: missing; normaliser 'tokens' needs the number of tokens of each row")
    length = as_tensor(length_PG, "length_PG", state.rewards_PG.device)
    length = shaped(length if length.ndim else length.expand(state.rewards_PG.shape), "length_PG", state.rewards_PG.shape)
    bad = state.valid_PG & ~((length >= 1) & torch.isfinite(length))
    if bool(bad.any()):
        p, g = bad.nonzero()[0].tolist()
        raise SignalError(f"length_PG: prompt {p}, rollout {g} is {length[p, g].item()}; a valid row has 1 token or more")
    return length
