"""Rows as other trainers hold them, flat and in any order, to groups and back: what every adapter shares.

Axis letters: R rows of the trainer, P groups, G slots of a group, N kept rows.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal import Constructor, Signal, SignalConfig, SignalError, construct
from recast_sim.signal.checks import as_tensor


@dataclass(frozen=True)
class KeptRows:
    """The rows of an update plan, by the trainer's own numbers.

    Attributes:
        signal: of the whole batch.
        groups: group ids in order of first appearance, P of them.
        row_PG: the trainer's row in each slot, int64, -1 where a slot has none.
        row_N: the kept row; where it is an anchor, the row that the anchor replaces, -1 if there is none to replace.
        group_N, slot_N: where the row stands.
        coefficient_NL: what the row's loss is multiplied with, its weight times its advantage: (N, 1), or a column a level.
        anchor_N: bool, the row is an anchor, whose tokens the caller writes.
    """

    signal: Signal
    groups: list[Hashable]
    row_PG: Tensor
    row_N: Tensor
    group_N: Tensor
    slot_N: Tensor
    coefficient_NL: Tensor
    anchor_N: Tensor

    @property
    def coefficient_N(self) -> Tensor:
        """The rows' coefficients, (N,). Raises SignalError where they differ by level."""
        if self.signal.plan.level_wise:
            raise SignalError(f"constructor: {self.signal.constructor} is level-wise; read coefficient_NL, one number a level")
        return self.coefficient_NL[:, 0]


def spread_levels(coefficient_NL: Tensor, first_N: Tensor, width: int) -> Tensor:
    """A number for each of `width` response tokens, (N, width): a level's own on its token, from `first_N` on.

    Tokens before an SID (a thought) get level 0's, tokens behind it the last level's.
    """
    level_NS = (torch.arange(width) - first_N[:, None]).clamp(0, coefficient_NL.shape[1] - 1)
    return coefficient_NL.gather(1, level_NS)


def select_rows(
    constructor: str | Constructor,
    group_R: Sequence[Hashable],
    rewards_R: Any,
    structural_R: Any = None,
    *,
    has_anchor_R: Any = None,
    logprob_R: Any = None,
    sids_RL: Any = None,
    targets_RTL: Any = None,
    slot_R: Sequence[int] | None = None,
    config: SignalConfig | None = None,
    generator: torch.Generator | None = None,
) -> KeptRows:
    """Construct the signal of flat rows and say which of them the actor must see.

    Args:
        constructor, config, generator: as in `construct`.
        group_R: the group of each row (a prompt's number or id).
        rewards_R, structural_R, logprob_R: one number a row. Groups may differ in size: a slot without a row is not valid.
        sids_RL, targets_RTL: codes of each row's SID, -1 where it has none, and of its prompt's targets, for level-wise
            constructors. The first target is the anchor's.
        has_anchor_R: bool; a group has an anchor where one of its rows says so. Needed by constructors with anchors.
        slot_R: place of each row in its group; default the order in which they come.

    Raises:
        SignalError: no rows, columns of another length or no numbers, two rows in one slot, or what `construct` refuses.
    """
    groups, group_index_R = _numbered(group_R)
    slots_R = _places(group_index_R) if slot_R is None else list(slot_R)
    R, P = len(group_index_R), len(groups)
    if not R:
        raise SignalError("group_R: no rows; pass at least one")
    _check_length("slot_R", len(slots_R), R)
    G = max(slots_R) + 1
    if min(slots_R) < 0 or len(set(zip(group_index_R, slots_R, strict=True))) < R:
        raise SignalError("slot_R: two rows of a group in one slot, or one below 0; number a group's rows 0, 1, ...")
    at_R = torch.tensor(group_index_R) * G + torch.tensor(slots_R)
    row_PG = torch.full((P * G,), -1).scatter(0, at_R, torch.arange(R)).reshape(P, G)

    def table(name: str, column_R: Any) -> Tensor | None:
        if column_R is None:
            return None
        column = as_tensor(column_R, name, torch.device("cpu"))
        _check_length(name, column.numel(), R)
        return torch.zeros(P * G, dtype=column.dtype).scatter(0, at_R, column.reshape(-1)).reshape(P, G)

    def levels(name: str, column_R: Any) -> Tensor | None:
        if column_R is None:
            return None
        column = as_tensor(column_R, name, torch.device("cpu"))
        _check_length(name, len(column), R)
        rows = torch.full((P * G, *column.shape[1:]), -1).index_copy(0, at_R, column.long())
        return rows.reshape(P, G, *column.shape[1:])

    anchors_PG = table("has_anchor_R", has_anchor_R)
    targets_PGTL = levels("targets_RTL", targets_RTL)
    signal = construct(
        constructor,
        table("rewards_R", rewards_R),
        table("structural_R", structural_R),
        valid_PG=row_PG >= 0,
        has_anchor_P=None if anchors_PG is None else anchors_PG.any(1),
        logprob_PG=table("logprob_R", logprob_R),
        sids_PGL=levels("sids_RL", sids_RL),
        targets_PTL=None if targets_PGTL is None else targets_PGTL.amax(1),  # a group's rows have the same
        config=config,
        generator=generator,
    )
    group_N, slot_N = signal.plan.rows_N // signal.group_size, signal.plan.rows_N % signal.group_size
    wider_PG = torch.nn.functional.pad(row_PG, (0, signal.group_size - G), value=-1)  # for constructors that append a row
    return KeptRows(
        signal=signal,
        groups=groups,
        row_PG=row_PG,
        row_N=wider_PG[group_N, slot_N],
        group_N=group_N,
        slot_N=slot_N,
        coefficient_NL=signal.plan.weights_N[:, None] * signal.plan.advantages_NL,
        anchor_N=signal.plan.anchor_N,
    )


def _numbered(group_R: Sequence[Hashable]) -> tuple[list[Hashable], list[int]]:
    number: dict[Hashable, int] = {}
    index_R = [number.setdefault(group, len(number)) for group in group_R]
    return list(number), index_R


def _places(group_R: Sequence[int]) -> list[int]:
    seen: dict[int, int] = {}
    places = []
    for group in group_R:
        places.append(seen.get(group, 0))
        seen[group] = places[-1] + 1
    return places


def _check_length(name: str, length: int, rows: int) -> None:
    if length != rows:
        raise SignalError(f"{name}: {length} values for {rows} rows; pass one a row")
