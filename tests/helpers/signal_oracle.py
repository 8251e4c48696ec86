"""Plain Python loops over one group at a time: the simple oracle of the signal module's tensor code.

It reads its rows by index only, so the same code runs on lists and on tensors. Ties go to the first row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RecastGroup:
    """What ReCast makes of one group; -1 stands for no row. `kept` holds the rows that the actor sees."""

    advantages: list[float]
    slot: int
    positive: int
    negative: int
    kept: list[int]


def repair_group(rewards: Any, scores: Any, valid: Any, has_anchor: bool, hit_above: float = 0.0) -> int:
    """Slot that the anchor takes, or -1: rows that are not valid go first, then the lowest score."""
    for g in range(len(rewards)):
        if valid[g] and rewards[g] > hit_above:
            return -1
    if not has_anchor:
        return -1
    slot = -1
    for g in range(len(rewards)):
        if not valid[g]:
            return g
        if slot < 0 or scores[g] < scores[slot]:
            slot = g
    return slot


def recast_group(
    rewards: Any,
    scores: Any,
    valid: Any,
    has_anchor: bool,
    w_plus: float = 1.0,
    w_minus: float = 1.0,
    hit_above: float = 0.0,
) -> RecastGroup:
    """Repair, boundary pair and kept rows of one group; an anchor's reward counts as 1."""
    slot = repair_group(rewards, scores, valid, has_anchor, hit_above)
    positive, negative = slot, -1
    for g in range(len(rewards)):
        if g == slot or not valid[g]:
            continue
        if rewards[g] > hit_above:
            if positive < 0 or rewards[g] > rewards[positive]:
                positive = g
        elif negative < 0 or scores[g] > scores[negative]:
            negative = g
    advantages = [0.0] * len(rewards)
    if positive < 0 or negative < 0:
        return RecastGroup(advantages, slot, -1, -1, [])
    advantages[positive], advantages[negative] = w_plus, -w_minus
    return RecastGroup(advantages, slot, positive, negative, [g for g, a in enumerate(advantages) if a != 0])


def recast_loop(
    rewards_PG: Any,
    scores_PG: Any,
    valid_PG: Any,
    has_anchor_P: Any,
    w_plus: float = 1.0,
    w_minus: float = 1.0,
    hit_above: float = 0.0,
) -> tuple[list[RecastGroup], list[int]]:
    """`recast_group` on every group of a batch, and the kept rows as flat indices p * G + g."""
    columns = zip(rewards_PG, scores_PG, valid_PG, has_anchor_P, strict=True)
    groups = [recast_group(*rows, w_plus, w_minus, hit_above) for rows in columns]
    width = len(rewards_PG[0])
    return groups, [p * width + g for p, group in enumerate(groups) for g in group.kept]


def grpo_group(rewards: Sequence[float], valid: Sequence[bool], eps: float = 1e-6, ddof: int = 1) -> list[float]:
    """(r - mean) / (std + eps) over the valid rows, 0 elsewhere and in groups with one valid row."""
    used = [float(r) for r, v in zip(rewards, valid, strict=True) if v]
    if len(used) < 2 or min(used) == max(used):
        return [0.0] * len(rewards)
    mean = sum(used) / len(used)
    std = (sum((r - mean) ** 2 for r in used) / (len(used) - ddof)) ** 0.5
    return [(float(r) - mean) / (std + eps) if v else 0.0 for r, v in zip(rewards, valid, strict=True)]
