"""Items that share all their codes, told apart: by one more level, or by the nearest free code.

Axis letters: I items, L quantised levels, D dimensions of the quantised space, C codes of a level.
"""

from collections import Counter
from math import prod

import numpy as np

from recast_train.semantic_id.errors import SemanticIdError
from recast_train.semantic_id.quantised import Floats, Ints, Quantised


def number_inside(quantised: Quantised) -> Ints:
    """Codes (I, L + 1): the last level counts the items of a cluster from the one nearest to its centre outwards.

    Ties follow the catalog, so that the order knows nothing but the embeddings.
    """
    cluster_I, distance_I = prefix_ids(quantised.codes_IL), _distances(quantised)
    order = np.lexsort((np.arange(len(cluster_I)), distance_I, cluster_I))
    first = np.searchsorted(cluster_I[order], cluster_I[order])
    index_I = np.empty_like(cluster_I)
    index_I[order] = np.arange(len(order)) - first
    return np.column_stack([quantised.codes_IL, index_I]).astype(np.int64)


def move_to_free(quantised: Quantised) -> Ints:
    """Codes (I, L), all different: of the items that share an SID the one nearest to its centre keeps it, the others move.

    They move in the order of their distances to their centres (ties follow the catalog), each to where the quantiser itself
    would have put it if full codes were closed: it keeps the longest prefix of its own with a free SID below, and from
    there takes at each level the nearest code with a free SID below. Raises SemanticIdError where there are more items
    than SIDs.
    """
    sizes, room = quantised.sizes, prod(quantised.sizes)
    if len(quantised.codes_IL) > room:
        mend = "raise sizes or use collisions = 'level'"
        raise SemanticIdError(f"sizes: {sizes} give {room} IDs to {len(quantised.codes_IL)} items; {mend}")
    codes_IL, distance_I = quantised.codes_IL.copy(), _distances(quantised)
    taken: Counter[tuple[int, ...]] = Counter()
    movers = []
    for item in np.argsort(distance_I, kind="stable").tolist():
        code = tuple(codes_IL[item].tolist())
        if taken[code]:
            movers.append(item)
        else:
            _take(taken, code)
    for item in movers:
        codes_IL[item] = _nearest_free(quantised, taken, item)
        _take(taken, tuple(codes_IL[item].tolist()))
    return codes_IL


def prefix_ids(codes_IL: Ints) -> Ints:
    """A number per distinct row, (I,), ascending by row."""
    return np.unique(codes_IL, axis=0, return_inverse=True)[1].reshape(-1)


def _distances(quantised: Quantised) -> Floats:
    return np.linalg.norm(quantised.residuals()[-1], axis=1)


def _take(taken: Counter[tuple[int, ...]], code: tuple[int, ...]) -> None:
    taken.update(code[:length] for length in range(len(code) + 1))


def _nearest_free(quantised: Quantised, taken: Counter[tuple[int, ...]], item: int) -> tuple[int, ...]:
    sizes = quantised.sizes
    own = tuple(quantised.codes_IL[item].tolist())
    below = [prod(sizes[length:]) for length in range(len(sizes) + 1)]  # SIDs under a prefix of each length
    kept = max(length for length in range(len(sizes)) if taken[own[:length]] < below[length])
    code, left_D = own[:kept], quantised.vectors_ID[item]
    for level, chosen in enumerate(code):
        left_D = left_D - quantised.codebooks[level][chosen]
    for level in range(kept, len(sizes)):
        full_C = np.array([taken[(*code, c)] >= below[level + 1] for c in range(sizes[level])])
        distance_C = np.linalg.norm(quantised.codebooks[level] - left_D, axis=1)
        code = (*code, int(np.where(full_C, np.inf, distance_C).argmin()))
        left_D = left_D - quantised.codebooks[level][code[-1]]
    return code
