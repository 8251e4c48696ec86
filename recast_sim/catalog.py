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

Ints = NDArray[np.int64]


class CatalogError(ValueError):
    """A catalog that cannot be built or read; the message names the argument, the offending value and the mend."""


@dataclass(frozen=True)
class Catalog:
    """SIDs of I items and the trie over them. Build it with `Catalog.from_codes`.

    Attributes:
        codes_IL: the SID of each item.
        sizes: codes that each level may hold.
        node_code: for each level 0..L, the last code of each node (the root's is -1).
        node_parent: for each level 0..L, each node's parent, an index into the level above (the root's is -1).
        child_offset: for each level 0..L-1, CSR offsets (N + 1): the children of node v are the nodes
            child_offset[l][v] .. child_offset[l][v + 1] - 1 of level l + 1, ascending by code.
        leaf_of_item_I: leaf of each item; items that share an SID share the leaf.
    """

    codes_IL: Ints
    sizes: tuple[int, ...]
    node_code: tuple[Ints, ...]
    node_parent: tuple[Ints, ...]
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
        node_code, node_parent, child_offset = [np.array([-1])], [np.array([-1])], []
        node_I, nodes = np.zeros(len(codes), dtype=np.int64), 1
        for level, size in enumerate(sizes):
            keys, node_I = _ranked(node_I * size + codes[:, level], nodes * size)
            node_code.append(keys % size)
            node_parent.append(keys // size)
            child_offset.append(np.searchsorted(node_parent[-1], np.arange(nodes + 1)))
            nodes = len(keys)
        return cls(codes, sizes, tuple(node_code), tuple(node_parent), tuple(child_offset), node_I)

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


def _ranked(key_I: Ints, room: int) -> tuple[Ints, Ints]:
    """Distinct keys, ascending, and the place of each key among them; keys lie in 0 .. room - 1."""
    if room > 8 * len(key_I):
        return np.unique(key_I, return_inverse=True)
    seen = np.zeros(room, dtype=bool)  # a table of all keys costs less than sorting the keys, where it is not much longer
    seen[key_I] = True
    return np.flatnonzero(seen), (seen.cumsum() - 1)[key_I]


def _checked(codes: NDArray[np.integer], sizes: Sequence[int] | None) -> tuple[Ints, tuple[int, ...]]:
    if codes.ndim != 2 or codes.size == 0:
        raise CatalogError(f"codes_IL: shape {codes.shape} is empty or not (items, levels); give at least one item")
    if not np.issubdtype(codes.dtype, np.integer):
        raise CatalogError(f"codes_IL: dtype {codes.dtype} must be an integer type")
    codes = codes.astype(np.int64)
    sizes = tuple(int(s) for s in (codes.max(0) + 1 if sizes is None else sizes))
    if len(sizes) != codes.shape[1]:
        raise CatalogError(f"sizes: {len(sizes)} levels do not fit codes_IL with {codes.shape[1]}")
    bad = (codes < 0) | (codes >= np.array(sizes))
    if bad.any():
        item, level = np.argwhere(bad)[0]
        raise CatalogError(
            f"codes_IL: item {item} has code {codes[item, level]} at level {level}, outside 0..{sizes[level] - 1}"
        )
    return codes, sizes
