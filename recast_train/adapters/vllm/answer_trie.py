"""A catalog's whole answers as token ids: their file, the trie over them, and the tokens that may come next.

An answer is all that a policy writes for an item: the text before its SID, the SID, what closes it, the token that ends a text.
Forced tokens are nodes of one child. Axis letters: Y answers, S tokens of an answer.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recast_sim.bounded import TENSOR_BYTES, read_bounded
from recast_sim.catalog import Catalog, CatalogError
from recast_sim.errors import RecastError
from recast_sim.runs import atomic_file

Ints = NDArray[np.int64]
_TABLE = "answers_YS"
_MEND = "write it with recast-train export vllm"


class AnswerError(RecastError):
    """Answers that cannot be read, or that a request cannot be held to; the message names file or key, value and mend."""


class AnswerTrie:
    """The trie over answers of S tokens each, which end with one and the same token.

    Raises AnswerError for a table that is empty, not of whole numbers from 0, or whose answers end with different tokens: a
    request could not be held to anything behind them.
    """

    def __init__(self, answers_YS: NDArray[np.integer]) -> None:
        try:
            self._catalog = Catalog.from_codes(answers_YS)
        except CatalogError as error:
            raise AnswerError(f"answers: {error}") from error
        ends = np.unique(self._catalog.codes_IL[:, -1])
        if len(ends) > 1:
            raise AnswerError(f"answers: end with the tokens {ends[:3].tolist()}; close each with the one that ends a text")
        self.end, self.length, self.answers = int(ends[0]), self._catalog.levels, self._catalog.leaves
        self.largest = max(self._catalog.sizes) - 1  # token id

    @property
    def table_YS(self) -> Ints:
        """Each answer once, ascending."""
        return self._catalog.leaf_codes

    def next_tokens(self, place: int, node: int) -> Ints:
        """Tokens that may stand at `place` (0 .. S - 1) under the `node` of that level, ascending; behind an answer its end."""
        if place >= self.length:
            return np.array([self.end])
        first, last = self._catalog.child_offset[place][node : node + 2]
        return self._catalog.node_code[place + 1][first:last]

    def child(self, place: int, node: int, token: int) -> int:
        """The node that `token` leads to. Raises AnswerError where it may not stand there."""
        tokens = self.next_tokens(place, node)
        at = int(np.searchsorted(tokens, token))
        if at == len(tokens) or tokens[at] != token:
            few = ", ".join(map(str, tokens[:5].tolist()))
            raise AnswerError(f"token {token}: cannot stand at place {place} of an answer, where {few} ({len(tokens)}) can")
        return 0 if place >= self.length else int(self._catalog.child_offset[place][node]) + at


def write_answers(path: Path, answers_YS: NDArray[np.integer]) -> AnswerTrie:
    """Write a file for `read_answers`, each answer once, and return its trie. Raises what `AnswerTrie` does."""
    trie = AnswerTrie(answers_YS)
    with atomic_file(path) as temporary:
        temporary.write_bytes(save({_TABLE: np.ascontiguousarray(trie.table_YS)}))
    return trie


def read_answers(path: Path) -> AnswerTrie:
    """The trie of a file of `write_answers`. Raises AnswerError where there is none, or it cannot be read."""
    try:
        found = load(read_bounded(path, TENSOR_BYTES, AnswerError))
    except FileNotFoundError as error:
        raise AnswerError(f"{path}: there is no such file of answers; {_MEND}") from error
    except (OSError, SafetensorError) as error:
        raise AnswerError(f"{path}: cannot be read as a file of answers ({error}); {_MEND}") from error
    if set(found) != {_TABLE}:
        raise AnswerError(f"{path}: holds {sorted(found)}, no {_TABLE}; {_MEND}")
    try:
        return AnswerTrie(found[_TABLE])
    except AnswerError as error:
        raise AnswerError(f"{path}: {error}") from error
