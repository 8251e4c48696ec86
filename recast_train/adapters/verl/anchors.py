"""Anchor rows: the ground truth in the place of a rollout, as verl's TransferQueue stores rows.

A sampler has no tokenizer. So the data set brings the anchors' token ids in `extra_info["recast"]`, written by
`recast-train export verl`: "anchors", one list of ids a target, "thought_end", the id that closes a thought, or None, and
"codes", the place of an SID's first code in an answer and the number of its codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal import SignalError, choose_anchor

_UNKNOWN = ("rollout_log_probs", "routed_experts", "teacher_ids", "teacher_logprobs")  # what no anchor has
_MASKS = ("response_mask", "loss_mask")


@dataclass(frozen=True)
class AnchorTokens:
    """Anchors of one prompt: token ids of each target's answer, the id that closes a thought (None: there is none), and where
    the codes of an SID stand in an answer (None: the data set does not say)."""

    answers: Sequence[Sequence[int]] = ()
    thought_end: int | None = None
    codes: Sequence[int] | None = None

    @classmethod
    def of(cls, extra_info: Any) -> "AnchorTokens":
        """From a row's `extra_info`; without anchors where it brings none."""
        own = extra_info.get("recast") if isinstance(extra_info, Mapping) else None
        return cls() if own is None else cls(own["anchors"], own["thought_end"], own.get("codes"))

    def thought(self, response_S: Tensor) -> Tensor | None:
        """The part of a response that goes before an anchor: its thought, nothing where none is wanted; None if unfinished."""
        if self.thought_end is None:
            return response_S[:0]
        ends = (response_S == self.thought_end).nonzero()
        return response_S[: int(ends[0]) + 1] if len(ends) else None

    def sid(self, response_S: Tensor) -> tuple[list[int], int]:
        """Token ids of the codes of a response's SID, -1 where it is too short, and the place of the first.

        Raises:
            SignalError: the data set does not say where an answer's codes are.
        """
        first, levels = self._places()
        thought_S = self.thought(response_S)
        if thought_S is None:
            return [-1] * levels, len(response_S)
        at = len(thought_S) + first
        found = response_S[at : at + levels].tolist()
        return found + [-1] * (levels - len(found)), at

    def targets(self) -> list[list[int]]:
        """Token ids of the codes of every target's SID."""
        first, levels = self._places()
        return [list(answer[first : first + levels]) for answer in self.answers]

    def _places(self) -> tuple[int, int]:
        if self.codes is None:
            raise SignalError(
                "extra_info: no 'codes', which a level-wise constructor needs; run recast-train export verl again"
            )
        return self.codes[0], self.codes[1]

    def choose(self, rule: Any, generator: torch.Generator) -> Tensor:
        """Token ids of the target that serves as the anchor."""
        one = choose_anchor(torch.ones(1, len(self.answers), dtype=torch.bool), rule, generator=generator)
        return torch.tensor(self.answers[int(one)], dtype=torch.int64)


def anchor_row(like: Mapping[str, Any], response_S: Tensor) -> dict[str, Any]:
    """The row of a rollout with another response: all fields that depend on the response are made anew, the others copied.

    Raises:
        SignalError: the row has a field that no anchor can have, or positions of more than one axis (images).
    """
    found = [name for name in _UNKNOWN if like.get(name) is not None]
    if found or like["position_ids"].ndim != 1:
        what = found[0] if found else "position_ids of more than one axis"
        raise SignalError(f"anchor: the rollouts have {what}, which an anchor has not; switch that off in verl's config")
    tokens = torch.cat([like["prompts"], response_S])
    own = {"responses": response_S, "input_ids": tokens, "position_ids": torch.arange(len(tokens))}
    own |= {name: torch.ones_like(response_S) for name in _MASKS}
    if "attention_mask" in like:
        own["attention_mask"] = torch.ones_like(tokens)
    return {**like, **own}


def row_lengths(row: Mapping[str, Any]) -> dict[str, int]:
    """The tags of a row that say how long it is."""
    prompt, response = len(row["prompts"]), len(row["responses"])
    return {"prompt_len": prompt, "response_len": response, "seq_len": prompt + response}
