"""OpenOneRec's own trainer (its verl 0.5 fork): which rows its actor should see, and the tokens of an anchor.

Two pure functions over plain tensors, for a short change to the fork's training loop; docs/openonerec.md shows where it goes.
Axis letters: R rows of the batch, N rows that are left, S tokens of a response, L levels of a semantic ID (SID).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal import SignalConfig, SignalError, get_constructor
from recast_train.adapters.flat_rows import select_rows


@dataclass(frozen=True)
class ActorRows:
    """What to keep of a batch. Slice *everything* that has a row axis by `rows_N`, the rewards and their extras too.

    Attributes:
        rows_N: int64 rows of the batch; an anchor stands in the row that it replaces; fillers come last and repeat a row.
        advantages_N: one number a row, 0 for fillers; the token's advantage is this times the response mask.
        anchor_N: bool, write the target's SID into this row (`write_anchors`).
        filler_N: bool, set this row's response mask to 0: it is there so that the rows divide among the ranks.
    """

    rows_N: Tensor
    advantages_N: Tensor
    anchor_N: Tensor
    filler_N: Tensor


def actor_rows(
    rewards_R: Any,
    structural_R: Any,
    prompt_R: Sequence[Hashable],
    *,
    has_anchor_R: Any = None,
    constructor: str = "recast",
    config: SignalConfig | None = None,
    generator: torch.Generator | None = None,
    multiple: int = 1,
) -> ActorRows:
    """Select the rows of a batch after its rewards are known and before any log-probability is computed.

    Args:
        rewards_R: task reward of each row, a number (the sum of its token-level rewards).
        structural_R: structural score in [0, 1] of each row; OpenOneRec logs it times 100. None where it is not needed.
        prompt_R: the prompt of each row, for example its uid.
        has_anchor_R: bool, an anchor can be written for this row's prompt; default all rows.
        constructor, config, generator: as in `recast_sim.signal.construct`.
        multiple: the number of rows must divide by it: the ranks, or the rows of a mini-batch.

    Raises:
        SignalError: what `select_rows` refuses, `multiple` below 1, a constructor that appends a row for its anchor, or
            one that is level-wise.
    """
    if get_constructor(constructor).appends:
        raise SignalError(f"constructor: {constructor} appends a row for its anchor, and the batch has none; choose another")
    if get_constructor(constructor).level_wise:
        raise SignalError(f"constructor: {constructor} gives a number a level, and these rows take one each; choose another")
    if multiple < 1:
        raise SignalError(f"multiple: {multiple} must be at least 1")
    anchors_R = torch.ones(len(prompt_R), dtype=torch.bool) if has_anchor_R is None else has_anchor_R
    kept = select_rows(
        constructor, prompt_R, rewards_R, structural_R, has_anchor_R=anchors_R, config=config, generator=generator
    )
    count = len(kept.row_N)
    fillers = -count % multiple if count else multiple
    first = kept.row_N[:1] if count else torch.zeros(1, dtype=torch.int64)
    return ActorRows(
        rows_N=torch.cat([kept.row_N, first.expand(fillers)]),
        advantages_N=torch.cat([kept.coefficient_N, kept.coefficient_N.new_zeros(fillers)]),
        anchor_N=torch.cat([kept.anchor_N, kept.anchor_N.new_zeros(fillers)]),
        filler_N=torch.arange(count + fillers) >= count,
    )


def write_anchors(
    responses_NS: Tensor, anchor_N: Tensor, targets_NL: Tensor, *, begin: int, thought_end: int | None = None
) -> Tensor:
    """Responses in which the anchors' SID is their target's: same thought, same prefix, then the target's L tokens.

    Only the L tokens change, so masks and positions stay as they are; write the result into `responses` and into the tail of
    `input_ids`.

    Args:
        responses_NS: token ids, padded on the right.
        anchor_N: bool, the rows to write into.
        targets_NL: token ids of each row's target, level by level; read only where `anchor_N` is true.
        begin: the token before an SID.
        thought_end: the token that closes a thought; the first `begin` after it counts. None: the first `begin` of all.

    Raises:
        SignalError: a row to write into has no `begin` (after its thought), or no room for L tokens behind it.
    """
    place_S = torch.arange(responses_NS.shape[1], device=responses_NS.device)
    answer_NS = torch.ones_like(responses_NS, dtype=torch.bool)
    if thought_end is not None:
        answer_NS = (responses_NS == thought_end).cumsum(1) > 0
    begins_NS = (responses_NS == begin) & answer_NS
    first_N = begins_NS.int().argmax(1) + 1
    bad_N = anchor_N & ~(begins_NS.any(1) & (first_N + targets_NL.shape[1] <= responses_NS.shape[1]))
    if bool(bad_N.any()):
        row = int(bad_N.nonzero()[0])
        raise SignalError(
            f"responses_NS: row {row} has no place for an SID after token {begin}; set has_anchor_R to false for its prompt"
        )
    level_NS = place_S - first_N[:, None]
    inside_NS = anchor_N[:, None] & (level_NS >= 0) & (level_NS < targets_NL.shape[1])
    written_NS = targets_NL.gather(1, level_NS.clamp(0, targets_NL.shape[1] - 1))
    return torch.where(inside_NS, written_NS, responses_NS)
