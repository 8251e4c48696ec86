"""What a data set gives with each prompt, its anchor and its targets, held against what they must be; errors name the row."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from recast_train.model import TrainError

_SHOWN = 80  # letters of a value


def bad_row(column: str, row: int, prompt: Any, value: object, mend: str) -> TrainError:
    """The error about a prompt of the batch."""
    return TrainError(f"{column}: {_cut(value)} {mend} (row {row} of the batch, prompt {_cut(prompt)})")


def whole_numbers(value: Any) -> list[int] | None:
    """A list of whole numbers, or None where it is anything else: text, floats, True, lists in a list."""
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):  # a tensor, or numpy's
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return None
    good = all(isinstance(part, Integral) and not isinstance(part, bool) for part in value)
    return [int(part) for part in value] if good else None


def checked_targets(targets: Sequence[Any], prompts: Sequence[Any], column: str) -> list[list[list[int]]]:
    """The targets of each row as lists of SIDs, all of them with codes of as many levels.

    Raises:
        TrainError: the first row whose targets are none (None, text, one SID without the list around it, floats), or have
            another number of levels than those before.
    """
    found, levels = [], 0
    for row, value in enumerate(targets):
        if hasattr(value, "tolist"):
            value = value.tolist()
        sids = None
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            sids = [whole_numbers(sid) for sid in value]
        if sids is None or any(sid is None or not sid or min(sid) < 0 for sid in sids):
            mend = "must be a list of semantic IDs, each a list of codes, such as [[3, 0, 2]]"
            raise bad_row(column, row, prompts[row], value, mend)
        own = [sid for sid in sids if sid is not None]
        levels = levels or len(own[0] if own else ())
        if any(len(sid) != levels for sid in own):
            mend = f"must have codes of as many levels as every other target, {levels}"
            raise bad_row(column, row, prompts[row], value, mend)
        found.append(own)
    return found


def checked_anchor(trainer: Any, found: Any, row: int, prompt: Any) -> list[int]:
    """An anchor as token ids.

    Raises:
        TrainError: text with a token that the tokenizer lacks; ids that are no whole numbers or outside the vocabulary; none at
            all, or more than a completion may have.
    """
    if isinstance(found, str):
        ids, unknown = trainer.processing_class(text=found, add_special_tokens=False)["input_ids"], _unknown(trainer)
        if unknown & set(ids):
            raise bad_row(
                "anchor", row, prompt, repr(found), "holds a token that the tokenizer lacks; add it, or give token ids"
            )
    else:
        ids = whole_numbers(found)
    if ids is None:
        raise bad_row("anchor", row, prompt, found, "must be text or a list of token ids, whole numbers")
    if not ids:
        raise bad_row("anchor", row, prompt, repr(ids), "is empty; give None where a prompt has no ground truth")
    size, most = _vocabulary(trainer), trainer.max_completion_length
    if min(ids) < 0 or max(ids) >= size:
        raise bad_row("anchor", row, prompt, ids, f"must hold ids from 0 to {size - 1}, which the tokenizer has")
    if most is not None and len(ids) > most:
        mend = f"has {len(ids)} tokens, more than max_completion_length ({most}); shorten it or raise that"
        raise bad_row("anchor", row, prompt, ids, mend)
    return ids


def _vocabulary(trainer: Any) -> int:
    rows = trainer.accelerator.unwrap_model(trainer.model).get_input_embeddings().num_embeddings
    return min(rows, len(trainer.processing_class))


def _unknown(trainer: Any) -> set[int]:
    """Ids that stand for words outside the vocabulary; a padding token that is also the end token stands for itself."""
    tokenizer = trainer.processing_class
    inner = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    word = getattr(inner, "unk_token", None)
    ids = {tokenizer.unk_token_id, None if word is None else tokenizer.convert_tokens_to_ids(word)}
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        ids.add(tokenizer.pad_token_id)
    return {number for number in ids if number is not None}


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
