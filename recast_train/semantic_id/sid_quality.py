"""How good a table of semantic IDs is: use of the codes, collisions, reconstruction, and agreement with co-occurrence.

Axis letters: I items, L levels, U users, D dimensions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recast_train.semantic_id.collisions import prefix_ids
from recast_train.semantic_id.embeddings.collaborative import matrix_shape, unit_columns
from recast_train.semantic_id.quantised import Floats, Ints, Quantised, relative_error
from recast_train.semantic_id.sid_error import SemanticIdError

Agreement = dict[str, float | None]


def usage(codes_IL: Ints, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Per level: share of codes in use, perplexity of the items over the codes, distinct prefixes up to here."""
    counts = [np.bincount(codes_IL[:, level], minlength=size) for level, size in enumerate(sizes)]
    return {
        "utilisation": [float((count > 0).mean()) for count in counts],
        "perplexity": [_perplexity(count) for count in counts],
        "prefixes": [len(np.unique(codes_IL[:, : level + 1], axis=0)) for level in range(len(sizes))],
    }


def reconstruction(quantised: Quantised, embeddings_ID: Floats) -> list[float | None]:
    """Relative error (see relative_error) of the embeddings rebuilt from the first 1 .. L levels."""
    left = quantised.residuals()
    return [relative_error(embeddings_ID, quantised.decode(quantised.vectors_ID - left_ID)) for left_ID in left[1:]]


def prefix_agreement(codes_IL: NDArray[np.int64], interactions_UI: sparse.csr_array) -> Agreement:
    """Mean co-occurrence cosine of item pairs: all pairs (`random`), and those that share the first l levels.

    Where `level_1` and `level_2` are not well above `random`, a shared prefix says nothing about taste and the
    structural score is noise. Exact over all pairs, by |sum of unit vectors|^2; an item without interactions has
    cosine 0 with all; None where no pair shares that much. Embeddings made from these interactions agree with them
    partly by construction; held-out interactions, given here for a report, do not have that flaw.
    """
    n_items = matrix_shape(interactions_UI)[1]
    if n_items != len(codes_IL):
        raise SemanticIdError(f"interactions: {n_items} items, codes: {len(codes_IL)}; use one catalog")
    unit_UI = unit_columns(interactions_UI)
    groups = {"random": np.zeros(len(codes_IL), dtype=np.int64)}
    for level in range(1, codes_IL.shape[1]):
        groups[f"level_{level}"] = prefix_ids(codes_IL[:, :level])
    return {name: _mean_pair_cosine(unit_UI, group_I) for name, group_I in groups.items()}


def agreements(codes_IL: Ints, train_UI: sparse.csr_array | None, heldout_UI: sparse.csr_array | None) -> dict[str, Agreement]:
    """`prefix_agreement` and `lift` on train and on held-out interactions, where they are given, for a report."""
    found: dict[str, Agreement] = {}
    for name, matrix in (("train", train_UI), ("heldout", heldout_UI)):
        if matrix is not None:
            agreement = prefix_agreement(codes_IL, matrix)
            found |= {f"{name}_agreement": agreement, f"{name}_lift": lift(agreement)}
    if train_UI is not None:
        found["agreement"] = found["train_agreement"]  # the name under which the table of a real run reads it
    return found


def lift(agreement: Agreement) -> Agreement:
    """How many times the cosine of random pairs those that share a prefix have; None where either is not there or 0."""
    base = agreement["random"]
    pairs = ((name, value) for name, value in agreement.items() if name != "random")
    return {name: value / base if base and value is not None else None for name, value in pairs}


def _perplexity(count: NDArray[np.int64]) -> float:
    share = count[count > 0] / count.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _mean_pair_cosine(unit_UI: sparse.csr_array, group_I: Ints) -> float | None:
    size_G = np.bincount(group_I)
    n_pairs = float((size_G * (size_G - 1.0)).sum())
    member_IG = sparse.csr_array((np.ones(len(group_I)), (np.arange(len(group_I)), group_I)))
    total_UG = sparse.csr_array(unit_UI @ member_IG)
    cosines = total_UG.multiply(total_UG).sum() - unit_UI.multiply(unit_UI).sum()
    return float(cosines / n_pairs) if n_pairs else None
