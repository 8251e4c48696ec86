"""The semantic-ID catalog: items to SIDs, a CSR trie over them, legal next tokens, collisions, synthetic trees.

Axes: I items, L levels, N nodes of one trie level, B children of a node (the widest node's number, padded with -1).
A node of level l is a distinct prefix of length l; level 0 is the root, the nodes of level L are the leaves, one for each
distinct SID.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from recast_sim.errors import RecastError

Ints = NDArray[np.int64]


class CatalogError(RecastError):
    """A catalog that cannot be built or read; the message names the argument, the offending value and the mend."""


@dataclass(frozen=True)
class Catalog:
    """SIDs of I items and the trie over them. Build it with `Catalog.from_codes`.

    Attributes:
        codes_IL: the SID of each item.
        sizes: codes that each level may hold.
        node_code: for each level 0..L, the last code of each node (the root's is -1).
        child_offset: for each level 0..L-1, CSR offsets (N + 1): the children of node v are the nodes
            `child_offset[l][v] .. child_offset[l][v + 1] - 1` of level l + 1, ascending by code.
        leaf_of_item_I: leaf of each item; items that share an SID share the leaf.
    """

    codes_IL: Ints
    sizes: tuple[int, ...]
    node_code: tuple[Ints, ...]
    child_offset: tuple[Ints, ...]
    leaf_of_item_I: Ints

    @classmethod
    def from_codes(cls, codes_IL: NDArray[np.integer], sizes: Sequence[int] | None = None) -> "Catalog":
        """Index a table of SIDs.

        Args:
            codes_IL: int codes, each in 0 .. size of its level - 1.
            sizes: codes of each level; default the largest code seen plus 1.

        Raises:
            CatalogError: no items, not two axes, or a code outside its level.
        """
        codes, sizes = _checked(np.asarray(codes_IL), sizes)
        columns, leaf_of_item_I = _leaves(codes, sizes)
        node_code, child_offset, above = [np.array([-1])], [], np.zeros(1, dtype=np.int64)
        new_Y = np.arange(len(columns[0])) == 0  # where the prefix so far is another than the leaf's before
        for code_Y in columns:
            new_Y[1:] |= code_Y[1:] != code_Y[:-1]
            first = np.flatnonzero(new_Y)  # each node's first leaf
            node_code.append(code_Y[first])
            child_offset.append(np.append(np.searchsorted(first, above), len(first)))
            above = first
        return cls(codes, sizes, tuple(node_code), tuple(child_offset), leaf_of_item_I)

    @property
    def levels(self) -> int:
        return self.codes_IL.shape[1]

    @property
    def items(self) -> int:
        return self.codes_IL.shape[0]

    @property
    def leaves(self) -> int:
        return len(self.node_code[-1])

    @property
    def collisions(self) -> int:
        """Items that do not have their SID to themselves."""
        counts = np.bincount(self.leaf_of_item_I)
        return int(counts[counts > 1].sum())

    @cached_property
    def node_parent(self) -> tuple[Ints, ...]:
        """For each level 0..L, each node's parent, an index into the level above (the root's is -1)."""
        below = [np.repeat(np.arange(len(offset) - 1), np.diff(offset)) for offset in self.child_offset]
        return (np.array([-1]), *below)

    @cached_property
    def leaf_codes(self) -> Ints:
        """SID of each leaf, (leaves, L)."""
        node, columns = np.arange(self.leaves), []
        for level in range(self.levels, 0, -1):
            columns.append(self.node_code[level][node])
            node = self.node_parent[level][node]
        return np.stack(columns[::-1], axis=1)

    @cached_property
    def leaf_nodes(self) -> Ints:
        """Node of each leaf's path at levels 1..L, (leaves, L)."""
        node, columns = np.arange(self.leaves), []
        for level in range(self.levels, 0, -1):
            columns.append(node)
            node = self.node_parent[level][node]
        return np.stack(columns[::-1], axis=1)

    def children(self, level: int) -> Ints:
        """Legal next steps of every node of `level` (0..L-1): node indices of level + 1, (N, B), -1 where padded.

        `node_code[level + 1][child]` is the child's code, that is the legal next token.
        """
        offset = self.child_offset[level]
        column = np.arange(np.diff(offset).max())
        table = offset[:-1, None] + column
        return np.where(table < offset[1:, None], table, -1)

    def find_leaf(self, sids_NL: NDArray[np.integer]) -> Ints:
        """Leaf of each SID, int64 (N,), -1 for an SID that no item has."""
        sids = np.asarray(sids_NL, dtype=np.int64)
        if sids.ndim != 2 or sids.shape[1] != self.levels:
            raise CatalogError(f"sids_NL: shape {sids.shape} does not fit; expected (N, {self.levels})")
        node = np.zeros(len(sids), dtype=np.int64)
        for level in range(self.levels):
            width = self.sizes[level]
            keys = self.node_parent[level + 1] * width + self.node_code[level + 1]  # ascending by construction
            code = sids[:, level]
            wanted = np.where((node >= 0) & (code >= 0) & (code < width), node * width + code, -1)
            at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
            node = np.where(keys[at] == wanted, at, -1)
        return node


def synthetic_codes(items: int, sizes: Sequence[int], rng: np.random.Generator) -> Ints:
    """Distinct random SIDs, (I, L): every item is its own leaf of a tree of the given sizes.

    Raises:
        CatalogError: no items, or more items than leaves.
    """
    room = prod(sizes)
    if not 1 <= items <= room:
        raise CatalogError(f"items: {items} must lie in 1..{room}, the leaves of a tree of sizes {tuple(sizes)}")
    flat = rng.choice(room, size=items, replace=False)
    return np.stack(np.unravel_index(flat, tuple(sizes)), axis=1).astype(np.int64)


def zipf_popularity(items: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Popularity of I items in random order: rank^-alpha, summing to 1; alpha = 0 is uniform.

    Raises:
        CatalogError: alpha is negative.
    """
    if alpha < 0:
        raise CatalogError(f"alpha: {alpha} must be 0 or more")
    weight = np.arange(1, items + 1, dtype=np.float64) ** -alpha
    return (weight / weight.sum())[rng.permutation(items)]


def _leaves(codes_IL: Ints, sizes: tuple[int, ...]) -> tuple[list[Ints], Ints]:
    """The distinct SIDs in ascending order, a column (Y,) a level, and the place of each item's SID among them."""
    room = prod(sizes)
    if room >= 2**63:  # no integer holds a whole SID
        sid_YL, leaf_I = np.unique(codes_IL, axis=0, return_inverse=True)
        return list(sid_YL.T), leaf_I.reshape(-1)
    key_I = codes_IL[:, 0]
    for code_I, size in zip(codes_IL.T[1:], sizes[1:], strict=True):
        key_I = key_I * size + code_I
    key_Y, leaf_I = _ranked(key_I, room)
    columns = []
    for size in sizes[:0:-1]:
        key_Y, code_Y = np.divmod(key_Y, size)
        columns.append(code_Y)
    return [key_Y, *columns[::-1]], leaf_I


def _ranked(key_I: Ints, room: int) -> tuple[Ints, Ints]:
    """Distinct keys, ascending, and the place of each key among them; keys lie in 0 .. room - 1."""
    if room > 8 * len(key_I):
        return np.unique(key_I, return_inverse=True)
    seen = np.zeros(room, dtype=bool)  # a table of all keys costs less than sorting the keys, where it is not much longer
    seen[key_I] = True
    key_Y, place = np.flatnonzero(seen), np.empty(room, dtype=np.int64)
    place[key_Y] = np.arange(len(key_Y))
    return key_Y, place[key_I]


def _checked(codes: NDArray[np.integer], sizes: Sequence[int] | None) -> tuple[Ints, tuple[int, ...]]:
    if codes.ndim != 2 or codes.size == 0:
        raise CatalogError(f"codes_IL: shape {codes.shape} is empty or not (items, levels); give at least one item")
    if not np.issubdtype(codes.dtype, np.integer):
        raise CatalogError(f"codes_IL: dtype {codes.dtype} must be an integer type")
    codes = codes.astype(np.int64)
    sizes = tuple(int(s) for s in (codes.max(0) + 1 if sizes is None else sizes))
    if len(sizes) != codes.shape[1]:
        raise CatalogError(f"sizes: {len(sizes)} levels do not fit codes_IL with {codes.shape[1]}")
    for level, (code_I, size) in enumerate(zip(codes.T, sizes, strict=True)):
        if code_I.min() < 0 or code_I.max() >= size:
            item = np.flatnonzero((code_I < 0) | (code_I >= size))[0]
            raise CatalogError(f"codes_IL: item {item} has code {code_I[item]} at level {level}, outside 0..{size - 1}")
    return codes, sizes
