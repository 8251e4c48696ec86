"""Structural scores of semantic IDs (SIDs), computed on token ids, never on text.

Axes: P prompts, G rollouts, S SIDs in a response, T targets of a prompt, L levels. The score orders rollouts inside a group;
it is never a reward.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from recast_sim.signal.reductions import flags
from recast_sim.signal.sid_keys import Packing
from recast_sim.signal.signal_config import SignalError

_PART = 2**16  # SIDs that stay in a core's cache from one operation to the next


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
    best_PGS, keys_PGS = _best_value(sids, targets, target_mask_PT, scores)
    counted = _counted(sids, keys_PGS, None if sid_mask_PGS is None else _mask(sid_mask_PGS, sids.shape[:3], "sid_mask_PGS"))
    if counted is None:
        return best_PGS[:, :, 0] if sids.shape[2] == 1 else best_PGS.sum(2) / max(1, sids.shape[2])
    return best_PGS.masked_fill(~counted, 0.0).sum(2) / counted.sum(2).clamp(min=1)


def exact_hit(sids_PGL: Tensor, targets_PTL: Tensor, target_mask_PT: Tensor | None = None) -> Tensor:
    """Task reward: 1.0 where the (first) SID of a response equals one of the prompt's targets, else 0.0: float (P, G)."""
    targets = targets_PTL[:, None] if targets_PTL.ndim == 2 else targets_PTL
    if sids_PGL.ndim != 3:
        raise SignalError(f"sids_PGL: {sids_PGL.ndim} axes do not fit; expected (P, G, L), the first SID of each response")
    _check_shapes(sids_PGL[:, :, None], targets)
    values = (*(0.0,) * sids_PGL.shape[2], 1.0)
    return _best_value(sids_PGL[:, :, None], targets, target_mask_PT, values)[0][:, :, 0]


def _best_value(
    sids: Tensor, targets: Tensor, target_mask_PT: Tensor | None, values: Sequence[float]
) -> tuple[Tensor, Tensor | None]:
    """The value of the longest prefix that each SID shares with a target, 0 without targets, and the SIDs' keys: (P, G, S).

    `values` by length 0..L do not decrease. Codes that no packing holds have no keys.
    """
    mask = None if target_mask_PT is None else _mask(target_mask_PT, targets.shape[:2], "target_mask_PT")
    packing = Packing.of(sids, targets)
    if packing is None:
        return _best_value_plain(sids, targets, mask, values), None
    keys_PGS, keys_PT = packing.keys(sids), packing.keys(targets, mask)
    best_PGS, groups = torch.zeros(sids.shape[:3], device=sids.device), max(1, _PART // sids[0, ..., 0].numel())
    for keys, target_keys, best in zip(*(table.split(groups) for table in (keys_PGS, keys_PT, best_PGS)), strict=True):
        least = packing.difference(keys, target_keys)
        for length, (below, value) in enumerate(itertools.pairwise((0.0, *values))):
            if value > below:
                shared = flags(torch.lt, least, packing.border(length))
                torch.maximum(best, shared.mul_(value), out=best)
    return best_PGS, keys_PGS


def _best_value_plain(sids: Tensor, targets: Tensor, mask: Tensor | None, values: Sequence[float]) -> Tensor:
    if targets.shape[1] == 0:
        return torch.zeros(sids.shape[:3], device=sids.device)
    length = prefix_length(sids, targets)
    if mask is not None:
        length = length.masked_fill(~mask[:, None, None], -1)
    return torch.tensor((0.0, *values), device=sids.device)[length.amax(3) + 1]


def _counted(sids: Tensor, keys: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Bool (P, G, S): the SID counts and does not stand at an earlier counted place of the same response; None where all do."""
    repeats = {}
    for earlier, place in itertools.combinations(range(sids.shape[2]), 2):
        same = (sids[:, :, place] == sids[:, :, earlier]).all(2) if keys is None else keys[:, :, place] == keys[:, :, earlier]
        if int(torch.count_nonzero(same)):
            repeats[earlier, place] = same
    if mask is None and not repeats:
        return None
    mask = torch.ones(sids.shape[:3], dtype=torch.bool, device=sids.device) if mask is None else mask
    counted = mask.clone()
    for (earlier, place), same in repeats.items():
        counted[:, :, place] &= ~(same & mask[:, :, earlier])
    return counted


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
