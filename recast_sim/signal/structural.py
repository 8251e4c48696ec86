"""Structural scores of semantic IDs (SIDs), computed on token ids, never on text.

Axes: P prompts, G rollouts, S SIDs in a response, T targets of a prompt, L levels. The score orders rollouts inside a group;
it is never a reward.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from recast_sim.signal.config import SignalError


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


def structural_score(
    sids_PGSL: Tensor,
    targets_PTL: Tensor,
    *,
    sid_mask_PGS: Tensor | None = None,
    target_mask_PT: Tensor | None = None,
    level_scores: Sequence[float] | None = None,
) -> Tensor:
    """u: the mean over a response's distinct SIDs of the best phi against any target (arXiv 2604.22169): float (P, G).

    Args:
        sids_PGSL: int SIDs of each response; (P, G, L) stands for one SID a response.
        targets_PTL: int SIDs of the targets; (P, L) stands for one target a prompt.
        sid_mask_PGS, target_mask_PT: bool, false for padding; default all true. P_i and T are sets: a SID that a response
            repeats counts once. The score is 0 where either set is empty.
        level_scores: phi by shared prefix length 0..L, non-decreasing in [0, 1]; default `default_level_scores(L)`.

    Raises:
        SignalError: shapes that do not fit or bad level scores.
    """
    sids = sids_PGSL[:, :, None] if sids_PGSL.ndim == 3 else sids_PGSL
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    _check_shapes(sids, targets)
    scores = default_level_scores(sids.shape[3]) if level_scores is None else tuple(level_scores)
    _check_level_scores(scores, sids.shape[3])
    sid_mask = _mask(sid_mask_PGS, sids.shape[:3], "sid_mask_PGS", sids.device)
    target_mask = _mask(target_mask_PT, targets.shape[:2], "target_mask_PT", sids.device)
    if targets.shape[1] == 0:
        return torch.zeros(sids.shape[:2], device=sids.device)
    length = prefix_length(sids, targets).masked_fill(~target_mask[:, None, None], 0)
    phi_PGS = torch.tensor(scores, device=sids.device)[length.amax(3)] * target_mask.any(1)[:, None, None]
    counted = sid_mask & ~_repeats(sids, sid_mask)
    return phi_PGS.masked_fill(~counted, 0.0).sum(2) / counted.sum(2).clamp(min=1)


def exact_hit(sids_PGL: Tensor, targets_PTL: Tensor, target_mask_PT: Tensor | None = None) -> Tensor:
    """Task reward: 1.0 where the (first) SID of a response equals one of the prompt's targets, else 0.0: float (P, G)."""
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    if sids_PGL.ndim != 3:
        raise SignalError(f"sids_PGL: {sids_PGL.ndim} axes do not fit; expected (P, G, L), the first SID of each response")
    _check_shapes(sids_PGL[:, :, None], targets)
    equal = (sids_PGL[:, :, None] == targets[:, None]).all(3)
    mask = _mask(target_mask_PT, targets.shape[:2], "target_mask_PT", targets.device)
    return (equal & mask[:, None]).any(2).float()


def _repeats(sids_PGSL: Tensor, mask_PGS: Tensor) -> Tensor:
    """Bool (P, G, S): the SID stood at an earlier counted place of the same response."""
    same = (sids_PGSL[:, :, :, None] == sids_PGSL[:, :, None]).all(4) & mask_PGS[:, :, None]
    return same.tril(-1).any(3)


def _mask(mask: Tensor | None, shape: torch.Size, name: str, device: torch.device) -> Tensor:
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
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
