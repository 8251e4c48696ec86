"""Item embeddings from the train interactions alone: who took what, or what was taken near what in time.

Axis letters: U users, I items, D embedding dimensions. float64 rows of length one, so that the squared distance that k-means
works with is 2 - 2 cosine.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigsh, svds

from recast_sim.runs import derive_seed
from recast_train.data import Dataset
from recast_train.data.references import transitions
from recast_train.semantic_id.quantised import ROUNDING
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
    return unit_rows(_signed(factor_ID))


def sequence_embeddings(dataset: Dataset, dim: int, seed: int) -> NDArray[np.float64]:
    """Embeddings (I, D = dim) of which items stand near each other in the train sequences.

    The matrix has, for two items, the sum of 1 / distance over the places where one follows the other (`transitions`, both
    ways), divided by the square root of both rows' sums, as a normalised graph Laplacian has; its D leading eigenvectors,
    times the square roots of their eigenvalues, are the embeddings: rows are close where items follow each other or the same
    ones. On sequences whose order matters they say more of the next item than `svd_embeddings` does. Rows are scaled to length
    one; an item without a neighbour in train, or that no component of D reaches, gets a row of zeros. `seed` draws the start
    vector; the sign of each component is fixed by its largest entry. Raises SemanticIdError where dim is not in 1 .. I - 1.
    """
    limit = dataset.n_items - 1
    if not 1 <= dim <= limit:
        raise SemanticIdError(f"dim: {dim} is out of 1 .. {limit} for {dataset.n_items} items; lower it")
    follow_II = transitions(dataset)
    near_II = sparse.csr_array(follow_II + follow_II.T)
    total_I = np.asarray(near_II.sum(axis=0)).ravel()
    scale = sparse.diags_array(np.divide(1.0, np.sqrt(total_I), out=np.zeros(len(total_I)), where=total_I > 0))
    start = np.random.default_rng(seed).standard_normal(dataset.n_items)
    strength_D, vector_ID = eigsh(sparse.csr_array(scale @ near_II @ scale), k=dim, which="LA", v0=start)
    return unit_rows(_signed(vector_ID[:, ::-1] * np.sqrt(strength_D[::-1].clip(min=0.0))))


def spread_unknown(embeddings_ID: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], int]:
    """The embeddings with each row of zeros, an item of which nothing is known, replaced, and how many there were.

    Equal rows would share all codes but the last: one cluster of everything that is new. A row becomes the direction between
    two drawn items that are known, so that new items lie where the known ones do. Where none is known nothing changes.
    """
    known_I = (embeddings_ID != 0).any(axis=1)
    unknown = np.flatnonzero(~known_I)
    if not len(unknown) or not known_I.any():
        return embeddings_ID, len(unknown)
    rng, found_ID = np.random.default_rng(derive_seed(seed, "items without interactions")), embeddings_ID.copy()
    pairs = rng.choice(np.flatnonzero(known_I), (len(unknown), 2))
    found_ID[unknown] = unit_rows(embeddings_ID[pairs[:, 0]] + rng.random((len(unknown), 1)) * embeddings_ID[pairs[:, 1]])
    return found_ID, len(unknown)


def matrix_shape(matrix: sparse.csr_array) -> tuple[int, int]:
    """Rows and columns, where scipy's own types leave the shape open."""
    return cast(tuple[int, int], matrix.shape)


def unit_columns(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with each column scaled to length one; empty columns stay empty."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sparse.csr_array(matrix @ sparse.diags_array(scale))


def unit_rows(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows scaled to length one; a row that is nothing but rounding beside the longest becomes one of zeros."""
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.divide(matrix, length, out=np.zeros(matrix.shape), where=length > ROUNDING * length.max(initial=0.0))


def _signed(factor_ID: NDArray[np.floating]) -> NDArray[np.floating]:
    """The sign of each column fixed by its largest entry."""
    peak_D = factor_ID[np.abs(factor_ID).argmax(axis=0), np.arange(factor_ID.shape[1])]
    return factor_ID * np.where(peak_D < 0, -1.0, 1.0)
