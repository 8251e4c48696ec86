"""Items that share all their codes, told apart: by one more level, or by the nearest free code.

Axis letters: I items, L quantised levels, D dimensions of the quantised space, C codes of a level, W prefixes of a beam,
V = W * C.
"""

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from recast_train.semantic_id.quantised import Floats, Ints, Quantised
from recast_train.semantic_id.sid_error import SemanticIdError

BEAM = 256  # prefixes that the search for a free SID keeps


def number_inside(quantised: Quantised) -> Ints:
    """Codes (I, L + 1): the last level counts the items of a cluster from the one nearest to its centre outwards.

    Ties follow the catalog, so that the order knows nothing but the embeddings.
    """
    cluster_I, distance_I = prefix_ids(quantised.codes_IL), _distances(quantised)
    order = np.lexsort((np.arange(len(cluster_I)), distance_I, cluster_I))
    return np.column_stack([quantised.codes_IL, _places_inside(cluster_I, order)]).astype(np.int64)


def number_shared(codes_IL: Ints) -> Ints:
    """Codes (I, L + 1): the last level counts the items of an ID in the order of the catalog, for codes without embeddings."""
    sid_I = prefix_ids(codes_IL)
    return np.column_stack([codes_IL, _places_inside(sid_I, np.argsort(sid_I, kind="stable"))]).astype(np.int64)


def cluster_sizes(codes_IL: Ints) -> dict[str, int]:
    """Items whose codes are not theirs alone, and the items of the largest cluster."""
    cluster = np.bincount(prefix_ids(codes_IL))
    return {"collisions": int(cluster[cluster > 1].sum()), "largest_cluster": int(cluster.max())}


def move_to_free(quantised: Quantised) -> Ints:
    """Codes (I, L), all different: of the items that share an SID the one nearest to its centre keeps it, the others move.

    They move in the order of their distances to their centres (ties follow the catalog), each to the nearest free code of
    its own last level, or, where that is full, to the free SID whose vector is nearest to its own. That one is looked for
    with a beam of 256 prefixes, so it is exact where there are no more prefixes of L - 1 levels than that.
    Raises SemanticIdError where there are more items than SIDs.
    """
    refuse_too_few_ids(len(quantised.codes_IL), quantised.sizes)
    codes_IL, distance_I = quantised.codes_IL.copy(), _distances(quantised)
    free, movers = _FreeIds(quantised.sizes), []
    for item in np.argsort(distance_I, kind="stable").tolist():
        code = tuple(codes_IL[item].tolist())
        if free.below(code[:-1])[code[-1]]:
            free.take(code)
        else:
            movers.append(item)
    for item in movers:
        code = _nearest_free(quantised, free, item)
        codes_IL[item] = code
        free.take(code)
    return codes_IL


def refuse_too_few_ids(items: int, sizes: Sequence[int]) -> None:
    """Raise SemanticIdError where the items cannot all have their own SID."""
    if items > (room := prod(sizes)):
        mend = "raise sizes or use collisions = 'level'"
        raise SemanticIdError(f"sizes: {tuple(sizes)} give {room} IDs to {items} items; {mend}")


def prefix_ids(codes_IL: Ints) -> Ints:
    """A number per distinct row, (I,), ascending by row."""
    return np.unique(codes_IL, axis=0, return_inverse=True)[1].reshape(-1)


def _places_inside(cluster_I: Ints, order_I: Ints) -> Ints:
    """Place of each item among those of its cluster, `order_I` being sorted by cluster first."""
    index_I = np.empty_like(cluster_I)
    index_I[order_I] = np.arange(len(order_I)) - np.searchsorted(cluster_I[order_I], cluster_I[order_I])
    return index_I


def _distances(quantised: Quantised) -> Floats:
    return np.linalg.norm(quantised.residuals()[-1], axis=1)


class _FreeIds:
    """Which codes of each prefix still lead to a free SID."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._taken: Counter[tuple[int, ...]] = Counter()  # SIDs in use below a prefix
        self._open: dict[tuple[int, ...], NDArray[np.bool_]] = {}

    def below(self, prefix: tuple[int, ...]) -> NDArray[np.bool_]:
        """For each code of the next level, whether there is a free SID below, bool (C,)."""
        return self._open.setdefault(prefix, np.ones(self._sizes[len(prefix)], dtype=bool))

    def take(self, code: tuple[int, ...]) -> None:
        for length in range(1, len(code) + 1):
            prefix = code[:length]
            self._taken[prefix] += 1
            if self._taken[prefix] == prod(self._sizes[length:]):
                self.below(prefix[:-1])[prefix[-1]] = False


def _nearest_free(quantised: Quantised, free: _FreeIds, item: int) -> tuple[int, ...]:
    own = tuple(quantised.codes_IL[item].tolist())
    start = own[:-1] if free.below(own[:-1]).any() else ()
    left_D = quantised.vectors_ID[item]
    for book_CD, code in zip(quantised.codebooks, start, strict=False):
        left_D = left_D - book_CD[code]
    prefixes, left_WD = [start], left_D[None]
    for book_CD in quantised.codebooks[len(start) :]:
        open_WC = np.stack([free.below(prefix) for prefix in prefixes])
        distance_V = np.where(open_WC, cdist(left_WD, book_CD), np.inf).ravel()
        best = np.argsort(distance_V, kind="stable")[: min(BEAM, int(open_WC.sum()))]
        rows, codes = np.divmod(best, len(book_CD))
        prefixes = [(*prefixes[row], code) for row, code in zip(rows.tolist(), codes.tolist(), strict=True)]
        left_WD = left_WD[rows] - book_CD[codes]
    return prefixes[0]
