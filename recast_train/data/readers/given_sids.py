"""Semantic IDs that a data format gives itself: text to codes. Axis letters: I items, L levels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = tuple[int, ...]
_MOST = 10**9  # codes of a level
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class GivenSids:
    """Items with given SIDs: `items` in sorted (string) order, `codes_IL` aligned to them, `sizes` codes a level."""

    items: list[str]
    codes_IL: NDArray[np.int64]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, codes: Mapping[str, Codes]) -> "GivenSids":
        """From item to codes, all of the same number of levels; a level's size is its largest code plus 1."""
        items = sorted(codes)
        codes_IL = np.array([codes[item] for item in items], dtype=np.int64).reshape(len(items), -1)
        return cls(items, codes_IL, tuple(int(size) + 1 for size in codes_IL.max(0, initial=-1)))


def parse_sid(value: object) -> Codes | None:
    """Codes of an SID as a table may write it: a list of tokens or of whole numbers, or a text such as "<a_1><b_2>"."""
    if isinstance(value, str):
        value = re.findall(r"<[^>]*>?|[^<\s,]+", value.removeprefix("<|sid_begin|>").removesuffix("<|sid_end|>"))
    if not isinstance(value, list) or not value:
        return None
    if all(type(code) is int and 0 <= code < _MOST for code in value):
        return tuple(value)
    if not all(isinstance(token, str) for token in value):
        return None
    return parse_levels(value, "") or parse_levels(value, "s_")


def parse_levels(tokens: Sequence[str], prefix: str) -> Codes | None:
    """Codes of an SID's tokens, level by level named a, b, c...: `<{prefix}a_236>`; None where one is not so."""
    codes = []
    if not 1 <= len(tokens) <= len(_LETTERS):
        return None
    for letter, token in zip(_LETTERS, tokens, strict=False):
        match = re.fullmatch(rf"<{prefix}{letter}_(0|[1-9][0-9]{{0,8}})>", token)
        if match is None:
            return None
        codes.append(int(match[1]))
    return tuple(codes)
