"""Tokens of histories and of training windows, for a pure SID vocabulary and for a text tokenizer alike.

A prompt is a prefix, the items of the history, and a suffix, padded on the left; the next token is level 0 of an SID. An item
is `begin`, its L tokens (`level_tokens[level][code]`), `end`. In the pure vocabulary the prefix is BOS and the others are
empty. Axis letters: P prompts, T tokens of a prompt, H history items, S tokens of an item, B windows, W items of a window,
I items, L levels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.model.chat import Chat, chat_tokens
from recast_train.model.model_config import CHAT, TrainError

PAD_TOKEN, BOS_TOKEN, SPECIAL_TOKENS = 0, 1, 2
Ints = NDArray[np.int64]
_SID_TOKEN = re.compile(r"<(?:s_)?[a-z]_[0-9]+>")


def on(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, whose pending work a copy to it does not wait for; a copy to the CPU has to."""
    return tensor.to(device, non_blocking=device.type != "cpu")


def beside(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor on another one's device, likewise."""
    return on(tensor, other.device)


@dataclass(frozen=True)
class PromptTokens:
    """Tokenised prompts: tokens (P, T) padded on the left, and which of them are real (P, T); at least one a prompt."""

    tokens_PT: Tensor
    real_PT: Tensor

    @property
    def length_P(self) -> Tensor:
        return self.real_PT.sum(1)

    @property
    def positions_PT(self) -> Tensor:
        """Position of each real token, counted from the first; on padding any."""
        return (self.real_PT.cumsum(1) - 1).clamp(min=0)

    def mask(self) -> Tensor:
        """Causal attention inside a prompt, bool (P, 1, T, T); padding sees itself alone, so that no softmax is empty."""
        T = self.tokens_PT.shape[1]
        causal = torch.ones(T, T, dtype=torch.bool, device=self.real_PT.device).tril()
        itself = torch.eye(T, dtype=torch.bool, device=self.real_PT.device)
        return (causal & self.real_PT[:, None, :] | itself)[:, None]

    def take(self, rows: Tensor | slice) -> "PromptTokens":
        """Some of the prompts, without the columns that are padding in all of them."""
        tokens, real = self.tokens_PT[rows], self.real_PT[rows]
        first = tokens.shape[1] - int(real.sum(1).max())
        return PromptTokens(tokens[:, first:], real[:, first:])

    def flush_left(self, rows: Tensor) -> "PromptTokens":
        """Some of the prompts with their padding, wherever it was, on the right: there plain causal attention needs no mask."""
        tokens, real = self.tokens_PT[rows], self.real_PT[rows]
        order = real.int().argsort(dim=1, descending=True, stable=True)[:, : int(real.sum(1).max())]
        return PromptTokens(tokens.gather(1, order), real.gather(1, order))

    def to(self, device: torch.device) -> "PromptTokens":
        return PromptTokens(on(self.tokens_PT, device), on(self.real_PT, device))


@dataclass(frozen=True)
class WindowTokens:
    """Training windows: tokens (B, T) padded on the right; the position that predicts each token (B, W, L), 0 where unused."""

    tokens_BT: Tensor
    at_BWL: Tensor


@dataclass(frozen=True)
class Vocabulary:
    """What token stands for what. Build it with `sid_vocabulary` or `text_vocabulary`.

    Attributes:
        codes_IL: the catalog's SIDs.
        level_tokens: for each level the token of each code, (C,): any numbers in any order. A code that no item has may have
            the token of another one.
        pad: of no effect wherever it stands.
        prefix, suffix: tokens before and after a prompt's history; the next token is level 0.
        begin, end: tokens around an SID; where `begin` is not empty, the suffix ends with it.
        size: largest token plus 1, the rows that an embedding needs.
        tokenizer: of a text vocabulary, with the SID tokens added.
        known: tokens below this one were the tokenizer's before SID tokens were added.
        thought_suffix: instead of `suffix` where a thought comes first; None where there is none.
        thought_end: the token that closes a thought; `begin` goes after it.
        chat: prompts are the data's own messages, not a text around a history.
    """

    codes_IL: Ints
    level_tokens: tuple[Ints, ...]
    pad: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    size: int
    tokenizer: Any = None
    known: int = 0
    thought_suffix: tuple[int, ...] | None = None
    thought_end: int | None = None
    chat: bool = False

    def encode(
        self, history_PH: Ints, thought: bool = False, chat_P: Sequence[Chat] | NDArray[np.object_] | None = None
    ) -> PromptTokens:
        """Prompts of histories (P, H) of item indices, -1 on the left where they are shorter; where `chat` is set, of `chat_P`.

        With `thought` they end where the model starts to think, and no SID may follow yet.

        Raises:
            TrainError: a thought is wanted of a vocabulary without one, or chats are and there are none.
        """
        suffix = self.thought_suffix if thought else self.suffix
        if suffix is None:
            raise TrainError("thought: this vocabulary has none; it needs a tokenizer with a chat template and </think>")
        if self.chat:
            if chat_P is None:
                raise TrainError(f"ModelConfig.prompt: {CHAT} needs prompts with messages (format 'openonerec'); give a text")
            return PromptTokens(*chat_tokens(self.tokenizer, list(chat_P), () if thought else self.begin, thought, self.pad))
        P, H = history_PH.shape
        known_PH, before = history_PH >= 0, len(self.prefix)
        items = np.where(known_PH[:, :, None], self._items(history_PH), self.pad).reshape(P, -1)
        tokens = np.concatenate([np.full((P, before), self.pad), items, np.tile(np.array(suffix, dtype=int), (P, 1))], 1)
        first = (H - known_PH.sum(1)) * self._width  # the prefix stands right before the first item
        tokens[np.arange(P)[:, None], first[:, None] + np.arange(before)] = self.prefix
        real = np.arange(tokens.shape[1]) >= first[:, None]
        return PromptTokens(torch.from_numpy(tokens), torch.from_numpy(real))

    def windows(self, window_BW: Ints) -> WindowTokens:
        """Windows (B, W) of item indices, -1 on the right, each read as the prompt of its last item, with that item's SID.

        Every item is a target: those of the history are predicted where they stand. The last level's token of the last item
        is predicted, never read. A window without an item is not allowed.
        """
        B, W = window_BW.shape
        before, after, width, levels = len(self.prefix), len(self.suffix), self._width, len(self.level_tokens)
        last_B = (window_BW >= 0).sum(1) - 1
        tokens = np.full((B, before + (W - 1) * width + after + levels), self.pad)
        tokens[:, :before] = self.prefix
        history = np.where(np.arange(W - 1)[:, None] < last_B[:, None, None], self._items(window_BW[:, :-1]), self.pad)
        tokens[:, before : before + (W - 1) * width] = history.reshape(B, -1)
        target = self.sid_tokens_IL[window_BW[np.arange(B), last_B]]
        tail = np.concatenate([np.tile(np.array(self.suffix, dtype=int), (B, 1)), target], 1)
        start = before + last_B * width
        tokens[np.arange(B)[:, None], start[:, None] + np.arange(after + levels)] = tail
        at_BW = before + np.arange(W) * width + len(self.begin) - 1
        at_BW = np.where(np.arange(W) == last_B[:, None], (start + after - 1)[:, None], at_BW)
        at_BW = np.where(np.arange(W) <= last_B[:, None], at_BW, 0)
        return WindowTokens(torch.from_numpy(tokens[:, :-1]), torch.from_numpy(at_BW[..., None] + np.arange(levels)))

    @property
    def added(self) -> int:
        """Tokens that the tokenizer did not have: a checkpoint knows nothing of them."""
        return self.size - self.known if self.tokenizer is not None else 0

    @cached_property
    def sid_tokens_IL(self) -> Ints:
        """Tokens of each item's SID."""
        return self.of_codes(self.codes_IL)

    def of_codes(self, codes_NL: Ints) -> Ints:
        """Tokens of SIDs, (N, L)."""
        return np.stack([tokens[codes_N] for tokens, codes_N in zip(self.level_tokens, codes_NL.T, strict=True)], axis=1)

    def not_text(self) -> NDArray[np.bool_]:
        """Bool (size,): true where a number is no token of free text.

        That is tokens of SIDs, also of codes that the catalog does not have, those around SIDs, and what no tokenizer names.
        """
        if self.tokenizer is None:
            found = np.zeros(self.size, dtype=bool)
        else:
            found = np.ones(self.size, dtype=bool)
            found[[token for name, token in self.tokenizer.get_vocab().items() if not _SID_TOKEN.fullmatch(name)]] = False
        for tokens in self.level_tokens:
            found[tokens] = True
        found[[*self.begin, *self.end]] = True
        return found

    @property
    def _width(self) -> int:
        return len(self.begin) + len(self.level_tokens) + len(self.end)

    def _items(self, item: Ints) -> Ints:
        """Tokens (..., S) of items (...)."""
        own = self.sid_tokens_IL[item]
        around = [np.tile(np.array(part, dtype=int), (*item.shape, 1)) for part in (self.begin, self.end)]
        return np.concatenate([around[0], own, around[1]], -1)


def sid_vocabulary(catalog: Catalog) -> Vocabulary:
    """PAD, BOS, then each level's own range of tokens, and nothing else."""
    starts = SPECIAL_TOKENS + np.concatenate([[0], np.cumsum(catalog.sizes)])
    tokens, size = in_a_row(starts[:-1].tolist(), catalog.sizes), int(starts[-1])
    return Vocabulary(catalog.codes_IL, tokens, PAD_TOKEN, prefix=(BOS_TOKEN,), suffix=(), begin=(), end=(), size=size)


def in_a_row(first: Sequence[int], sizes: Sequence[int]) -> tuple[Ints, ...]:
    """Tokens of each level where those of a level follow each other."""
    return tuple(np.arange(start, start + size) for start, size in zip(first, sizes, strict=True))


def tokenise_histories(history_PH: Ints, catalog: Catalog) -> PromptTokens:
    """Histories (P, H) of item indices, -1 on the left, in the pure vocabulary: BOS, then L tokens an item."""
    return sid_vocabulary(catalog).encode(history_PH)
