"""From item embeddings to a table of semantic IDs: quantise, tell apart what shares its codes, report."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recast_train.semantic_id.collisions import cluster_sizes, move_to_free, number_inside, refuse_too_few_ids
from recast_train.semantic_id.quantised import Floats, Quantised, checked
from recast_train.semantic_id.residual_kmeans import residual_kmeans
from recast_train.semantic_id.sid_config import Collisions, Method, RqVaeConfig
from recast_train.semantic_id.sid_error import SemanticIdError
from recast_train.semantic_id.sid_quality import agreements, reconstruction, usage
from recast_train.semantic_id.sid_table import SidTable


def tokenize_items(
    embeddings_ID: NDArray[np.floating],
    sizes: Sequence[int],
    seed: int,
    train_matrix: sparse.csr_array | None = None,
    heldout_matrix: sparse.csr_array | None = None,
    *,
    method: Method = "residual_kmeans",
    collisions: Collisions = "level",
    rqvae: RqVaeConfig | None = None,
    on_epoch: Callable[[int, int], None] = lambda *_: None,
) -> SidTable:
    """Semantic IDs of len(sizes) quantised levels, and an index level where collisions = "level"; "keep" leaves them shared.

    The report holds, per level of the table, `utilisation` (share of codes in use), `perplexity` (of the items over the
    codes) and `prefixes` (distinct prefixes up to the level); before collisions are handled, `collisions` (items whose
    codes were not theirs alone), `largest_cluster` and `reconstruction_error` (relative, from the first 1 .. L levels);
    with collisions = "nearest", `moved` items and `reconstruction_error_moved`, after they moved; with "keep", `kept`. With
    `train_matrix` (U, I), `train_agreement` and `train_lift`; with `heldout_matrix`, `heldout_agreement` and `heldout_lift`
    (see prefix_agreement and lift): the quantity that the structural score relies on.
    Raises SemanticIdError: see residual_kmeans, train_rqvae and move_to_free.
    """
    embeddings = checked(embeddings_ID, sizes)
    if collisions == "nearest":
        refuse_too_few_ids(len(embeddings), sizes)  # before the work of quantising them
    quantised = _quantise(embeddings, sizes, seed, method, rqvae, on_epoch)
    moved: dict[str, Any] = {}
    if collisions == "level":
        codes_IL = number_inside(quantised)
        all_sizes = (*quantised.sizes, int(codes_IL[:, -1].max()) + 1)
    elif collisions == "keep":
        codes_IL, all_sizes, moved["kept"] = quantised.codes_IL, quantised.sizes, True
    else:
        codes_IL, all_sizes = move_to_free(quantised), quantised.sizes
        after = Quantised(quantised.vectors_ID, quantised.codebooks, codes_IL, quantised.decode)
        moved["moved"] = int((codes_IL != quantised.codes_IL).any(axis=1).sum())
        moved["reconstruction_error_moved"] = reconstruction(after, embeddings)[-1]
    report = {"method": method, **usage(codes_IL, all_sizes), **cluster_sizes(quantised.codes_IL)}
    report |= {"reconstruction_error": reconstruction(quantised, embeddings), **moved}
    report |= agreements(codes_IL, train_matrix, heldout_matrix)
    return SidTable(codes_IL, all_sizes, report)


def _quantise(
    embeddings: Floats,
    sizes: Sequence[int],
    seed: int,
    method: Method,
    rqvae: RqVaeConfig | None,
    on_epoch: Callable[[int, int], None],
) -> Quantised:
    if method == "residual_kmeans" and rqvae is None:
        return residual_kmeans(embeddings, sizes, seed)
    if method != "rqvae":
        raise SemanticIdError(f"method: {method!r} takes no RqVaeConfig; use 'rqvae'")
    from recast_train.semantic_id.rqvae import train_rqvae  # torch is seconds to import

    return train_rqvae(embeddings, sizes, seed, rqvae or RqVaeConfig(), on_epoch)
