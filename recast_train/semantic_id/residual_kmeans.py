"""Semantic IDs by residual k-means: k-means on the embeddings, k-means on what is left, and an index at the end.

The quantised levels share one codebook per level (as in RQ-VAE, arXiv:2305.05065, but without a network to train).
The last level numbers the items inside each cluster, so that every ID is unique. Axis letters: I items, L levels,
D embedding dimensions.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import sparse

from recast_train.semantic_id.embeddings import SemanticIdError, matrix_shape, unit_columns

RESTARTS = 10  # k-means++ starts, of which the tightest is kept
CODES_FILE, HEADER_FILE = "sids.safetensors", "sids.json"


@dataclass(frozen=True)
class SidTable:
    """One semantic ID per item: `codes_IL` (int64, level l in 0 .. sizes[l] - 1), all rows different.

    `report` says how good the table is: `utilisation` (share of codes in use) and `perplexity` (of the items over
    the codes) per level; `prefixes`, the distinct prefixes of 1 .. L levels; `collisions`, the items whose quantised
    prefix was not theirs alone; `largest_cluster`; and `agreement` (see prefix_agreement) where it was asked for.
    Raises SemanticIdError for codes that break this.
    """

    codes_IL: NDArray[np.int64]
    sizes: tuple[int, ...]
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codes = self.codes_IL
        if codes.ndim != 2 or codes.dtype != np.int64 or codes.shape[1] != len(self.sizes) or not len(codes):
            found = f"{codes.dtype} {codes.shape}"
            raise SemanticIdError(f"codes: {found} for {len(self.sizes)} levels; give int64 (items, levels)")
        if (codes < 0).any() or (codes >= np.array(self.sizes)).any():
            found = f"{codes.min(axis=0)} to {codes.max(axis=0)}"
            raise SemanticIdError(f"codes: {found} are not within sizes {self.sizes}; tokenize again")
        if len(np.unique(codes, axis=0)) < len(codes):
            raise SemanticIdError("codes: two items share one semantic ID; tokenize again")


def tokenize_items(
    embeddings_ID: NDArray[np.floating],
    sizes: Sequence[int],
    seed: int,
    train_matrix: sparse.csr_array | None = None,
) -> SidTable:
    """Semantic IDs of len(sizes) quantised levels and one index level.

    Each level is k-means (scikit-learn, k-means++, 10 restarts, seed derived from `seed` and the level) on the
    residuals of the level before. The index counts from the item nearest to its quantised centre outwards, ties in
    catalog order: it knows nothing but the embeddings. With `train_matrix` (U, I) the report holds the agreement.
    Raises SemanticIdError for embeddings that are not a finite (I, D), an empty catalog, or a level with more codes
    than there are different vectors to cluster.
    """
    residual_ID = _checked(embeddings_ID, sizes)
    codes = []
    for level, size in enumerate(sizes, start=1):
        codes.append(_cluster(residual_ID, size, seed, level))
        residual_ID = residual_ID - _centres(residual_ID, codes[-1], size)[codes[-1]]
    quantised_IL = np.stack(codes, axis=1)
    index_I = _index_inside(_prefix_ids(quantised_IL), np.linalg.norm(residual_ID, axis=1))
    codes_IL = np.column_stack([quantised_IL, index_I]).astype(np.int64)
    all_sizes = (*(int(size) for size in sizes), int(index_I.max()) + 1)
    report = _report(codes_IL, all_sizes)
    if train_matrix is not None:
        report["agreement"] = prefix_agreement(codes_IL, train_matrix)
    return SidTable(codes_IL, all_sizes, report)


def prefix_agreement(codes_IL: NDArray[np.int64], interactions_UI: sparse.csr_array) -> dict[str, float | None]:
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
        groups[f"level_{level}"] = _prefix_ids(codes_IL[:, :level])
    return {name: _mean_pair_cosine(unit_UI, group_I) for name, group_I in groups.items()}


def save_sids(table: SidTable, folder: Path) -> None:
    """Write sids.safetensors (the codes) and sids.json (sizes, report, sha256 of all of it) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"sizes": list(table.sizes), "report": table.report, "sha256": _content_hash(table)}
    _write(folder / CODES_FILE, save({"codes_IL": np.ascontiguousarray(table.codes_IL)}))
    _write(folder / HEADER_FILE, json.dumps(header, indent=2, allow_nan=False).encode())


def load_sids(folder: Path) -> SidTable:
    """The table of `save_sids`. Raises SemanticIdError for a missing, cut off or edited file."""
    try:
        codes_IL = load((folder / CODES_FILE).read_bytes())["codes_IL"]
        header = json.loads((folder / HEADER_FILE).read_bytes())
        table = SidTable(codes_IL, tuple(header["sizes"]), header["report"])
        expected = header["sha256"]
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise SemanticIdError(f"{folder}: not a readable table of semantic IDs ({error}); tokenize again") from error
    if (found := _content_hash(table)) != expected:
        raise SemanticIdError(f"{folder}: content has sha256 {found}, {HEADER_FILE} says {expected}; tokenize again")
    return table


def _checked(embeddings_ID: NDArray[np.floating], sizes: Sequence[int]) -> NDArray[np.float64]:
    embeddings = np.asarray(embeddings_ID, dtype=np.float64)
    if embeddings.ndim != 2 or not embeddings.size:
        raise SemanticIdError(f"embeddings: shape {embeddings.shape}; give (items, dimensions), one or more of each")
    bad = np.argwhere(~np.isfinite(embeddings))
    if len(bad):
        value = embeddings[tuple(bad[0])]
        raise SemanticIdError(f"embeddings: {value} at item {bad[0][0]}, dimension {bad[0][1]}; make them finite")
    if not sizes or min(sizes) < 1:
        raise SemanticIdError(f"sizes: {tuple(sizes)}; give one or more levels of one or more codes")
    return embeddings


def _cluster(residual_ID: NDArray[np.float64], size: int, seed: int, level: int) -> NDArray[np.int64]:
    scale = max(float(np.abs(residual_ID).max()), 1e-300)
    different = len(np.unique(np.round(residual_ID / scale, 9), axis=0))  # what differs by less is rounding noise
    if different < size:
        raise SemanticIdError(f"sizes: level {level} has {size} codes for {different} different vectors; lower it")
    from sklearn.cluster import KMeans  # a second to import; reading a table does not need it

    state = int(np.random.SeedSequence([seed, level]).generate_state(1)[0])
    settings: dict[str, Any] = {"n_init": RESTARTS, "random_state": state}  # scikit-learn's types know only "auto"
    return np.asarray(KMeans(size, **settings).fit_predict(residual_ID), dtype=np.int64)


def _centres(vector_ID: NDArray[np.float64], code_I: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    total_BD = np.zeros((size, vector_ID.shape[1]))
    np.add.at(total_BD, code_I, vector_ID)
    return total_BD / np.maximum(np.bincount(code_I, minlength=size), 1)[:, None]


def _prefix_ids(codes_IL: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(codes_IL, axis=0, return_inverse=True)[1].reshape(-1)


def _index_inside(cluster_I: NDArray[np.int64], distance_I: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.lexsort((np.arange(len(cluster_I)), distance_I, cluster_I))
    first = np.searchsorted(cluster_I[order], cluster_I[order])
    index_I = np.empty_like(cluster_I)
    index_I[order] = np.arange(len(order)) - first
    return index_I


def _report(codes_IL: NDArray[np.int64], sizes: tuple[int, ...]) -> dict[str, Any]:
    counts = [np.bincount(codes_IL[:, level], minlength=size) for level, size in enumerate(sizes)]
    cluster = np.bincount(_prefix_ids(codes_IL[:, :-1]))
    return {
        "utilisation": [float((count > 0).mean()) for count in counts],
        "perplexity": [_perplexity(count) for count in counts],
        "prefixes": [len(np.unique(codes_IL[:, : level + 1], axis=0)) for level in range(len(sizes))],
        "collisions": int(cluster[cluster > 1].sum()),
        "largest_cluster": int(cluster.max()),
    }


def _perplexity(count: NDArray[np.int64]) -> float:
    share = count[count > 0] / count.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _mean_pair_cosine(unit_UI: sparse.csr_array, group_I: NDArray[np.int64]) -> float | None:
    size_G = np.bincount(group_I)
    n_pairs = float((size_G * (size_G - 1.0)).sum())
    member_IG = sparse.csr_array((np.ones(len(group_I)), (np.arange(len(group_I)), group_I)))
    total_UG = sparse.csr_array(unit_UI @ member_IG)
    cosines = total_UG.multiply(total_UG).sum() - unit_UI.multiply(unit_UI).sum()
    return float(cosines / n_pairs) if n_pairs else None


def _content_hash(table: SidTable) -> str:
    header = json.dumps([table.codes_IL.shape, table.sizes, table.report], sort_keys=True, allow_nan=False)
    return hashlib.sha256(header.encode() + table.codes_IL.astype("<i8").tobytes()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(path.suffix + ".tmp")
    scratch.write_bytes(content)
    os.replace(scratch, path)
