"""Item embeddings from the train interactions alone: a truncated SVD of who took what.

Axis letters: U users, I items, D embedding dimensions. float64 rows of length one, so that the squared distance that k-means
works with is 2 - 2 cosine.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from recast_train.semantic_id.sid_error import SemanticIdError


def svd_embeddings(train_matrix: sparse.csr_array, dim: int, seed: int) -> NDArray[np.float64]:
    """Collaborative embeddings (I, D = dim) from the train interactions (U, I) alone.

    Columns are scaled to length one before the SVD, X = U S V'. Then X'X is the item-item cosine of co-occurrence,
    and V S is its best rank-D factor: popular items do not crowd out the others, and rows that are close are items
    that the same users took. Rows are scaled to length one; an item that nobody took in train gets a row of zeros.
    `seed` draws the start vector; the sign of each component is fixed by its largest entry. Raises SemanticIdError
    where dim is not in 1 .. min(U, I) - 1.
    """
    n_users, n_items = matrix_shape(train_matrix)
    limit = min(n_users, n_items) - 1
    if not 1 <= dim <= limit:
        raise SemanticIdError(f"dim: {dim} is out of 1 .. {limit} for {n_users} users, {n_items} items; lower it")
    start = np.random.default_rng(seed).standard_normal(limit + 1)
    unit_UI = unit_columns(train_matrix)
    _, strength, item = svds(unit_UI, k=dim, v0=start, rng=np.random.default_rng(seed))
    strength_D, item_DI = np.asarray(strength)[::-1], np.asarray(item)[::-1]  # the solver has the strongest last
    factor_ID = item_DI.T * strength_D
    peak_D = factor_ID[np.abs(factor_ID).argmax(axis=0), np.arange(dim)]
    return unit_rows(factor_ID * np.where(peak_D < 0, -1.0, 1.0))


def matrix_shape(matrix: sparse.csr_array) -> tuple[int, int]:
    """Rows and columns, where scipy's own types leave the shape open."""
    return cast(tuple[int, int], matrix.shape)


def unit_columns(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with each column scaled to length one; empty columns stay empty."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sparse.csr_array(matrix @ sparse.diags_array(scale))


def unit_rows(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, length, out=np.zeros(matrix.shape), where=length > 0)
