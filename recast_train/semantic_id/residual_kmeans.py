"""Residual k-means: k-means on the embeddings, then on what each level leaves, one codebook a level.

As in RQ-VAE (arXiv 2305.05065), but without a network to train. Axis letters: I items, L levels, D embedding dimensions,
C codes of a level.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_train.semantic_id.quantised import Floats, Ints, Quantised, checked, refuse_too_many

RESTARTS = 10  # k-means++ starts, of which the tightest is kept


def residual_kmeans(embeddings_ID: NDArray[np.floating], sizes: Sequence[int], seed: int) -> Quantised:
    """Codes (I, L = len(sizes)) by scikit-learn's k-means (k-means++, 10 restarts, seed derived from `seed` and the level).

    Raises SemanticIdError for embeddings that are not a finite (I, D), an empty catalog, or a level with more codes than
    there are different vectors to cluster.
    """
    vectors_ID = residual_ID = checked(embeddings_ID, sizes)
    codes, books = [], []
    for level, size in enumerate(sizes, start=1):
        refuse_too_many(size, residual_ID, level)
        codes.append(_cluster(residual_ID, size, seed, level))
        books.append(_centres(residual_ID, codes[-1], size))
        residual_ID = residual_ID - books[-1][codes[-1]]
    return Quantised(vectors_ID, tuple(books), np.stack(codes, axis=1), lambda rebuilt_ID: rebuilt_ID)


def _cluster(residual_ID: Floats, size: int, seed: int, level: int) -> Ints:
    from sklearn.cluster import KMeans  # a second to import; reading a table does not need it

    state = int(np.random.SeedSequence([seed, level]).generate_state(1)[0])
    settings: dict[str, Any] = {"n_init": RESTARTS, "random_state": state}  # scikit-learn's types know only "auto"
    return np.asarray(KMeans(size, **settings).fit_predict(residual_ID), dtype=np.int64)


def _centres(vector_ID: Floats, code_I: Ints, size: int) -> Floats:
    total_CD = np.zeros((size, vector_ID.shape[1]))
    np.add.at(total_CD, code_I, vector_ID)
    return total_CD / np.maximum(np.bincount(code_I, minlength=size), 1)[:, None]
