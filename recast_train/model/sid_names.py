"""Which of a tokenizer's tokens are semantic IDs': the names that public checkpoints give them, level by level.

OpenOneRec writes <s_a_0> between <|sid_begin|> and <|sid_end|>; MiniOneRec and LETTER write <a_0> and nothing around. Tokens
may have any numbers: MiniOneRec's are sorted as text, and only those that occur are there. Axis letters: L levels, C codes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from recast_sim.catalog import Catalog
from recast_train.model.model_config import TrainError

BEGIN, END = "<|sid_begin|>", "<|sid_end|>"
PREFIXES = ("s_", "")  # of OpenOneRec's names, of MiniOneRec's
_NAME = re.compile(r"<(s_)?([a-z])_(0|[1-9][0-9]*)>")
Tokens = dict[int, int]  # code to token


def sid_token(level: int, code: int, prefix: str = PREFIXES[0]) -> str:
    """Name of a code's token: <s_a_0>, <s_a_1>, ... of the first level, <s_b_0> of the second."""
    return f"<{prefix}{ascii_lowercase[level]}_{code}>"


@dataclass(frozen=True)
class SidNames:
    """How a tokenizer names the tokens of a catalog's SIDs, and those that it has, by level.

    Attributes:
        prefix: of PREFIXES.
        around: SIDs stand between BEGIN and END.
        known: of each level the tokens there are, those of codes that no item has among them; empty where a level has none.
    """

    prefix: str
    around: bool
    known: tuple[Tokens, ...]

    @classmethod
    def of(cls, catalog: Catalog, table: Mapping[str, int], name: str) -> "SidNames":
        """Of a tokenizer's tokens by name; OpenOneRec's names where it has none.

        Raises:
            TrainError: a level that is there in part lacks the token of an item, which is named; or names of both kinds.
        """
        every = {prefix: _by_level(table, prefix, catalog.levels) for prefix in PREFIXES}
        there = [prefix for prefix in PREFIXES if any(every[prefix])]
        whole = [prefix for prefix in there if not _missing(catalog, every[prefix], prefix)]
        if len(there) > 1 and len(whole) != 1:
            both = " and ".join(sid_token(0, 0, prefix) for prefix in there)
            raise TrainError(f"ModelConfig.tokenizer: {name} has tokens like {both}; keep those of one kind")
        prefix = (whole or there or PREFIXES)[0]
        missing = _missing(catalog, every[prefix], prefix)
        if missing:
            raise TrainError(
                f"ModelConfig.tokenizer: {name} has no token {missing[0]}, which an item needs ({len(missing)} such); "
                "give the semantic IDs that it was trained on (sids.path), or a tokenizer without tokens of that level"
            )
        around = prefix == PREFIXES[0] and (not there or {BEGIN, END} <= table.keys())
        return cls(prefix, around, every[prefix])

    def lacking(self, sizes: tuple[int, ...]) -> list[str]:
        """Names of tokens to add: whole levels that the tokenizer does not have, and those around an SID."""
        levels = [level for level, known in enumerate(self.known) if not known]
        names = [sid_token(level, code, self.prefix) for level in levels for code in range(sizes[level])]
        return [BEGIN, END, *names] if self.around else names

    def level_tokens(self, catalog: Catalog, table: Mapping[str, int]) -> tuple[NDArray[np.int64], ...]:
        """Token of each code (C,) of each level, once those that were lacking are in the table."""
        levels = zip(_by_level(table, self.prefix, catalog.levels), catalog.codes_IL.T, catalog.sizes, strict=True)
        return tuple(_filled(tokens, codes_I, size) for tokens, codes_I, size in levels)


def _by_level(table: Mapping[str, int], prefix: str, levels: int) -> tuple[Tokens, ...]:
    found: tuple[Tokens, ...] = tuple({} for _ in range(levels))
    for name, token in table.items():
        match = _NAME.fullmatch(name)
        if match and (match[1] or "") == prefix and (level := ascii_lowercase.index(match[2])) < levels:
            found[level][int(match[3])] = token
    return found


def _missing(catalog: Catalog, known: tuple[Tokens, ...], prefix: str) -> list[str]:
    """Names of tokens that items need, of levels that are there in part."""
    return [
        sid_token(level, code, prefix)
        for level, tokens in enumerate(known)
        for code in np.unique(catalog.codes_IL[:, level]).tolist()
        if tokens and code not in tokens
    ]


def _filled(tokens: Tokens, codes_I: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Codes without a token, which no item has, get one that is there."""
    other = tokens[int(codes_I[0])]
    return np.array([tokens.get(code, other) for code in range(size)], dtype=np.int64)
