"""Structural scores of semantic IDs (SIDs), computed on token ids, never on text.

Axes: P prompts, G rollouts, S SIDs in a response, T targets of a prompt, L levels. The score orders rollouts inside a group;
it is never a reward.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from recast_sim.signal.signal_config import SignalError

Repeats = Literal["once", "each"]


def default_level_scores(levels: int) -> tuple[float, ...]:
    """Score by shared prefix length 0..L: 0 for none, then 10^-(L - j). For L = 3: 0, .01, .1, 1 (arXiv 2604.22169)."""
    return (0.0, *(10.0 ** (length - levels) for length in range(1, levels + 1)))


def prefix_length(sids_PGSL: Tensor, targets_PTL: Tensor) -> Tensor:
    """Levels that each SID shares with each target from the first on: int64 (P, G, S, T), 0..L."""
    shape = (*sids_PGSL.shape[:3], targets_PTL.shape[1])
    alive = torch.ones(shape, dtype=torch.bool, device=sids_PGSL.device)
    length = torch.zeros(shape, dtype=torch.int64, device=sids_PGSL.device)
    for level in range(sids_PGSL.shape[3]):
        alive = alive & (sids_PGSL[..., None, level] == targets_PTL[:, None, None, :, level])
        length = length + alive
    return length


def level_matches(sids_PGL: Tensor, targets_PTL: Tensor, *, prefix: bool = True) -> Tensor:
    """Hard structural scores by level: float (P, G, L), 1 where a SID matches a target on a level, else 0.

    Args:
        sids_PGL: integer codes of each row's SID.
        targets_PTL: integer codes of the targets, -1 on every level of one that is not there; (P, L) stands for one target.
        prefix: a level counts only where all levels before it match the same target (the trie's view). Without it each level
            counts by itself.

    Raises:
        SignalError: shapes that do not fit.
    """
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    _check_shapes(sids_PGL[:, :, None], targets)
    match_PGTL = (sids_PGL[:, :, None] == targets[:, None]) & (targets >= 0)[:, None]
    if prefix:
        match_PGTL = match_PGTL.cumprod(3).bool()
    return match_PGTL.any(2).float()


def structural_score(
    sids_PGSL: Tensor,
    targets_PTL: Tensor,
    *,
    sid_mask_PGS: Tensor | None = None,
    target_mask_PT: Tensor | None = None,
    level_scores: Sequence[float] | None = None,
    repeats: Repeats = "once",
) -> Tensor:
    """u: the mean over a response's SIDs of the best phi against any target (arXiv 2604.22169): float (P, G).

    Args:
        sids_PGSL: int SIDs of each response; (P, G, L) stands for one SID a response.
        targets_PTL: int SIDs of the targets; (P, L) stands for one target a prompt.
        sid_mask_PGS, target_mask_PT: bool, false for padding; default all true. The score is 0 where either is empty.
        level_scores: phi by shared prefix length 0..L, non-decreasing in [0, 1]; default `default_level_scores(L)`.
        repeats: a SID that a response repeats counts "once", since the paper's P_i is a set, or "each" time, as in OpenOneRec's
            own score, which averages over the list.

    Raises:
        SignalError: shapes that do not fit, bad level scores or an unknown rule for repeats.
    """
    sids = sids_PGSL[:, :, None] if sids_PGSL.ndim == 3 else sids_PGSL
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    _check_shapes(sids, targets)
    scores = default_level_scores(sids.shape[3]) if level_scores is None else tuple(level_scores)
    _check_level_scores(scores, sids.shape[3])
    if repeats not in ("once", "each"):
        raise SignalError(f"repeats: {repeats!r} must be once or each")
    best_PGS = _best_value(sids, targets, target_mask_PT, scores)
    counted = torch.ones(sids.shape[:3], dtype=torch.bool, device=sids.device)
    if sid_mask_PGS is not None:
        counted = _mask(sid_mask_PGS, sids.shape[:3], "sid_mask_PGS")
    if repeats == "once":
        counted = _first_of_each(sids, counted)
    return best_PGS.masked_fill(~counted, 0.0).sum(2) / counted.sum(2).clamp(min=1)


def exact_hit(sids_PGL: Tensor, targets_PTL: Tensor, target_mask_PT: Tensor | None = None) -> Tensor:
    """Task reward: 1.0 where the (first) SID of a response equals one of the prompt's targets, else 0.0: float (P, G)."""
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    if sids_PGL.ndim != 3:
        raise SignalError(f"sids_PGL: {sids_PGL.ndim} axes do not fit; expected (P, G, L), the first SID of each response")
    _check_shapes(sids_PGL[:, :, None], targets)
    values = (*(0.0,) * sids_PGL.shape[2], 1.0)
    return _best_value(sids_PGL[:, :, None], targets, target_mask_PT, values)[:, :, 0]


def _best_value(sids: Tensor, targets: Tensor, target_mask_PT: Tensor | None, values: Sequence[float]) -> Tensor:
    """The value of the longest prefix that each SID shares with a target, 0 without targets: float (P, G, S).

    `values` by length 0..L do not decrease. Targets one by one, so that no table has an axis for them.
    """
    mask = None if target_mask_PT is None else _mask(target_mask_PT, targets.shape[:2], "target_mask_PT")
    best = torch.full(sids.shape[:3], -1, device=sids.device)
    for target in range(targets.shape[1]):
        length = prefix_length(sids, targets[:, target : target + 1])[..., 0]
        if mask is not None:
            length = length.masked_fill(~mask[:, target, None, None], -1)
        torch.maximum(best, length, out=best)
    return torch.tensor((0.0, *values), device=sids.device)[best + 1]


def _first_of_each(sids: Tensor, counted: Tensor) -> Tensor:
    """`counted`, (P, G, S), without SIDs that stand at an earlier counted place of the same response."""
    first = counted.clone()
    for earlier, place in itertools.combinations(range(sids.shape[2]), 2):
        same = (sids[:, :, place] == sids[:, :, earlier]).all(2)
        first[:, :, place] &= ~(same & counted[:, :, earlier])
    return first


def _mask(mask: Tensor, shape: torch.Size, name: str) -> Tensor:
    if mask.shape != shape or mask.dtype != torch.bool:
        raise SignalError(f"{name}: {mask.dtype} of shape {tuple(mask.shape)} must be bool of shape {tuple(shape)}")
    return mask


def _check_shapes(sids: Tensor, targets: Tensor) -> None:
    if sids.ndim != 4:
        raise SignalError(f"sids_PGSL: {sids.ndim} axes do not fit; expected (P, G, S, L) or (P, G, L)")
    if targets.ndim != 3 or targets.shape[0] != sids.shape[0] or targets.shape[2] != sids.shape[3]:
        raise SignalError(
            f"targets_PTL: shape {tuple(targets.shape)} does not fit; expected ({sids.shape[0]}, targets, {sids.shape[3]})"
        )


def _check_level_scores(scores: tuple[float, ...], levels: int) -> None:
    steps = itertools.pairwise(scores)
    if len(scores) != levels + 1 or not 0 <= scores[0] <= scores[-1] <= 1 or any(not a <= b for a, b in steps):
        raise SignalError(f"level_scores: {scores} must be {levels + 1} non-decreasing numbers in [0, 1]")
