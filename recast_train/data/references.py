"""Reference recommenders that a trained model must beat, and the one ranking metric that judges them all.

Popularity, item-kNN in two forms and sequential co-occurrence, from the train split alone, on the window that a model
sees. `item_knn` is the textbook form: cosine, no recency, the number of neighbours chosen on the validation prompts.
`item_knn_recency` (each step back in the history weighs less) and `sequential` (co-occurrence in order) are there to be as
strong as such methods get, not as easy; their constants were chosen on ML-100K's validation prompts.

Two policies, always named: `seen_filtered` takes what the user had seen before the target out of the ranking,
`unfiltered` ranks the whole catalog. Where users come back to items the first one can hit nothing that they come back to:
from a share of `REPEATS` of targets seen before, the second one counts. Where items share a semantic ID, IDs are ranked, not
items: an ID is as good as the best of its items (those not seen, where seen items are filtered), and a hit of an ID is a hit
of every item that has it.
Axis letters: N prompts, I items, S distinct semantic IDs, U users, H history positions, T targets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from recast_train.data import Dataset, Prompts, train_matrix

Policy = Literal["seen_filtered", "unfiltered"]
ScoreFn = Callable[[Prompts], NDArray[np.floating]]  # n prompts to scores (n, I)

CHUNK = 1024  # prompts scored at once
CUTS = (1, 5, 10, 20, 50)  # ranks down to which hits count
KNN_DECAY = 0.7
REPEATS = 0.05  # of targets seen before; the data sets of the field have next to none, or a quarter and more
NEIGHBOURS = (10, 20, 50, 100, 200, None)  # grid for the textbook item-kNN; None is all
SEQUENTIAL_DECAY, SEQUENTIAL_WINDOW = 0.9, 50


def metrics_from_rank(rank_N: ArrayLike, cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """hr@k of each cut, ndcg@k of those above 1, and mrr@k of the last, from the rank of each prompt's best target.

    Rank 1 is best, infinity is not recommended. ndcg@k is the mean of 1 / log2(1 + rank) where rank <= k, else 0: of the best
    target alone, so the ideal is 1; mrr@k that of 1 / rank. Raises ValueError for no ranks, a rank below 1, or NaN.
    """
    rank_N = np.asarray(rank_N, dtype=np.float64)
    if rank_N.ndim != 1 or not rank_N.size or not (rank_N >= 1).all():
        raise ValueError(f"ranks: shape {rank_N.shape}, or a value that is not 1 or more; give one rank per prompt")
    gain_N, last = 1.0 / np.log2(1.0 + rank_N), max(cuts)
    hits = {f"hr@{k}": float((rank_N <= k).mean()) for k in cuts}
    gains = {f"ndcg@{k}": float(gain_N[rank_N <= k].sum() / rank_N.size) for k in cuts if k > 1}
    return hits | gains | {f"mrr@{last}": float((1.0 / rank_N[rank_N <= last]).sum() / rank_N.size)}


def target_rank(
    scores_NI: NDArray[np.floating], prompts: Prompts, seen_filter: bool, sid_I: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Rank of each prompt's best target in its row of scores: 1 plus the other items with a score as high.

    So a tie counts against the target, and a constant score earns the last place, not a lucky one; a prompt's other targets
    are no rivals. A target scored -inf, or seen before where seen items are filtered, was not recommended; where none was:
    rank infinity. With `sid_I` (numbers from 0, one an item) the ranking is one of semantic IDs, as the module says. Raises
    ValueError for NaN, or for scores that do not have one row per prompt.
    """
    return best_target(scores_NI, prompts, seen_filter, sid_I)[0]


def best_target(
    scores_NI: NDArray[np.floating], prompts: Prompts, seen_filter: bool, sid_I: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """`target_rank`, and the score of the target that has it, -inf where none was recommended."""
    if scores_NI.ndim != 2 or len(scores_NI) != len(prompts) or np.isnan(scores_NI).any():
        raise ValueError(f"scores: shape {scores_NI.shape} for {len(prompts)} prompts, or NaN; give (prompts, items)")
    if seen_filter:
        scores_NI = scores_NI.astype(np.float64)  # a copy: the caller keeps its scores
        scores_NI[np.repeat(np.arange(len(prompts)), np.diff(prompts.seen_offset)), prompts.seen_item] = -np.inf
    targets_NT = prompts.targets_NT
    row_N1 = np.arange(len(prompts))[:, None]
    own_NT = np.where(targets_NT >= 0, scores_NI[row_N1, targets_NT], -np.inf)
    if sid_I is not None:
        scores_NI, recommended_NT = _of_sids(scores_NI, sid_I), ~np.isneginf(own_NT)
        first_NT = _first_of_sid(sid_I[targets_NT], recommended_NT)
        own_NT = np.where(first_NT, scores_NI[row_N1, sid_I[targets_NT]], -np.inf)
    best_N1 = own_NT.max(1, keepdims=True)
    rivals_N = (scores_NI >= best_N1).sum(axis=1) - (own_NT == best_N1).sum(axis=1)
    return np.where(np.isneginf(best_N1[:, 0]), np.inf, 1 + rivals_N), best_N1[:, 0]


def shared_sids(codes_IL: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The number of each item's semantic ID, (I,), where items share one; None where none do, and ranks are those of items."""
    if codes_IL is None:
        return None
    distinct_SL, sid_I = np.unique(codes_IL, axis=0, return_inverse=True)
    return None if len(distinct_SL) == len(codes_IL) else sid_I.reshape(-1)


def _of_sids(scores_NI: NDArray[np.floating], sid_I: NDArray[np.int64]) -> NDArray[np.floating]:
    """Best score of the items of each semantic ID, (N, S)."""
    order_I = np.argsort(sid_I, kind="stable")
    start_S = np.searchsorted(sid_I[order_I], np.arange(sid_I.max() + 1))
    return np.maximum.reduceat(scores_NI[:, order_I], start_S, axis=1)


def _first_of_sid(sid_NT: NDArray[np.int64], recommended_NT: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which recommended targets are the first of a prompt with their semantic ID: two targets of one ID are one answer."""
    same_NTT = (sid_NT[:, :, None] == sid_NT[:, None, :]) & recommended_NT[:, None, :]
    earlier_TT = np.tri(sid_NT.shape[1], k=-1, dtype=bool)
    return recommended_NT & ~(same_NTT & earlier_TT).any(2)


def repeats(prompts: Prompts) -> NDArray[np.float64]:
    """Share of each prompt's targets that the user had seen before, (N,)."""
    there_NT, width = prompts.targets_NT >= 0, 1 + max(prompts.seen_item.max(initial=0), prompts.targets_NT.max(initial=0))
    row_M = np.repeat(np.arange(len(prompts)), np.diff(prompts.seen_offset))
    target_NT = np.arange(len(prompts))[:, None] * width + prompts.targets_NT
    again_NT = np.isin(target_NT, row_M * width + prompts.seen_item) & there_NT
    return again_NT.sum(1) / there_NT.sum(1)


def policy_of(repeats_N: NDArray[np.float64]) -> Policy:
    """The policy that counts on prompts of which these shares of targets were seen before."""
    return "unfiltered" if len(repeats_N) and repeats_N.mean() >= REPEATS else "seen_filtered"


def rank_metrics(
    score_fn: ScoreFn,
    prompts: Prompts,
    seen_filter: bool,
    cuts: Sequence[int] = CUTS,
    sid_I: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """metrics_from_rank of a scorer over the whole catalog, some prompts at a time."""
    chunks = [prompts.take(slice(start, start + CHUNK)) for start in range(0, len(prompts), CHUNK)]
    ranks = [target_rank(score_fn(chunk), chunk, seen_filter, sid_I) for chunk in chunks]
    return metrics_from_rank(np.concatenate(ranks) if ranks else [], cuts)


def popularity_scores(train_matrix: sparse.csr_array) -> NDArray[np.float64]:
    """Number of train users of each item, (I,)."""
    return np.asarray(train_matrix.sum(axis=0), dtype=np.float64).ravel()


def item_similarity(train_matrix: sparse.csr_array, k: int | None = None) -> sparse.csr_array:
    """Cosine of the train users of two items (I, I), zero diagonal; row i keeps the k nearest of item i, or all.

    Source: Sarwar et al. 2001 (10.1145/371920.372071), Deshpande and Karypis 2004 (10.1145/963770.963776). Ties at
    the edge of the neighbourhood go to the earlier item of the catalog.
    """
    similarity_II = _normalised(sparse.csr_array(train_matrix.T @ train_matrix), popularity_scores(train_matrix))
    similarity_II.setdiag(0.0)
    similarity_II.eliminate_zeros()
    return similarity_II if k is None else _nearest(similarity_II, k)


def transition_similarity(dataset: Dataset, window: int = SEQUENTIAL_WINDOW) -> sparse.csr_array:
    """`transitions`, scaled by the square root of both items' counts, as a cosine is."""
    count_I = np.bincount(_train_items(dataset)[0], minlength=dataset.n_items)
    return _normalised(transitions(dataset, window), count_I)


def transitions(dataset: Dataset, window: int = SEQUENTIAL_WINDOW) -> sparse.csr_array:
    """How often item j followed item i in the train sequences (I, I), at distance d up to `window` with weight 1 / d."""
    item, user = _train_items(dataset)
    shape = (dataset.n_items, dataset.n_items)
    total_II = sparse.csr_array(shape)
    for step in range(1, min(window, len(item) - 1) + 1):
        same = user[step:] == user[:-step]
        pairs = (item[:-step][same], item[step:][same])
        total_II = total_II + sparse.csr_array((np.full(same.sum(), 1.0 / step), pairs), shape=shape)
    return total_II


def _train_items(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The train items of all users in order, and the user of each."""
    length = np.diff(dataset.offset_U1)
    place = np.arange(len(dataset.item_M)) - np.repeat(dataset.offset_U1[:-1], length)
    kept = place < np.repeat(dataset.train_end_U, length)
    return dataset.item_M[kept], np.repeat(np.arange(dataset.n_users), length)[kept]


def history_scores(similarity_II: sparse.csr_array, history_NH: NDArray[np.int64], decay: float) -> NDArray[np.float64]:
    """Sum over a history (left-padded with -1) of decay^(steps back) times the row of each item: (N, I)."""
    row, column = np.nonzero(history_NH >= 0)
    weight = decay ** (history_NH.shape[1] - 1.0 - column)
    shape = (len(history_NH), len(similarity_II.indptr) - 1)
    profile_NI = sparse.csr_array((weight, (row, history_NH[row, column])), shape=shape)
    return sparse.csr_array(profile_NI @ similarity_II).toarray()


def item_knn_scores(
    train_matrix: sparse.csr_array, history_NH: NDArray[np.int64], k: int | None = None, decay: float = KNN_DECAY
) -> NDArray[np.float64]:
    """Item-kNN scores (N, I): cosine to the k nearest (None: all) of each item of the history.

    An item of the history that lies s steps back weighs decay^s; decay = 1 is the textbook sum.
    """
    return history_scores(item_similarity(train_matrix, k), history_NH, decay)


def choose_neighbours(dataset: Dataset, validation: Prompts, sid_I: NDArray[np.int64] | None = None) -> int | None:
    """The k of the textbook item-kNN: of NEIGHBOURS the one with the best validation HR@10, under the policy that counts."""
    train_UI, seen_filter = train_matrix(dataset), policy_of(repeats(validation)) == "seen_filtered"

    def score(k: int | None) -> float:
        similarity_II = item_similarity(train_UI, k)
        scorer: ScoreFn = lambda chunk: history_scores(similarity_II, chunk.history_NH, 1.0)  # noqa: E731
        return rank_metrics(scorer, validation, seen_filter, sid_I=sid_I)["hr@10"]

    return max(NEIGHBOURS, key=score)


def references(
    dataset: Dataset,
    prompts: Prompts,
    neighbours: int | None,
    cuts: Sequence[int] = CUTS,
    sid_I: NDArray[np.int64] | None = None,
    more: Mapping[str, ScoreFn] | None = None,
) -> dict[str, Any]:
    """Metrics of popularity, item_knn, item_knn_recency, sequential and `more`, each under `seen_filtered` and `unfiltered`.

    They see what a model sees, the window `prompts.history_NH`; the filter knows the whole past. `neighbours` is the
    textbook item-kNN's (`choose_neighbours`); the recency-weighted form takes all. With `sid_I` they are judged as models are
    whose items share semantic IDs.
    """
    train_UI = train_matrix(dataset)
    popular_I, next_II = popularity_scores(train_UI), transition_similarity(dataset)
    near_II, every_II = item_similarity(train_UI, neighbours), item_similarity(train_UI)
    scorers: dict[str, ScoreFn] = {
        "popularity": lambda chunk: np.broadcast_to(popular_I, (len(chunk), dataset.n_items)),
        "item_knn": lambda chunk: history_scores(near_II, chunk.history_NH, 1.0),
        "item_knn_recency": lambda chunk: history_scores(every_II, chunk.history_NH, KNN_DECAY),
        "sequential": lambda chunk: history_scores(next_II, chunk.history_NH, SEQUENTIAL_DECAY),
        **(more or {}),
    }
    filters = {"seen_filtered": True, "unfiltered": False}
    return {
        name: {policy: rank_metrics(scorer, prompts, seen, cuts, sid_I) for policy, seen in filters.items()}
        for name, scorer in scorers.items()
    }


def _normalised(count_II: sparse.csr_array, total_I: NDArray[np.number]) -> sparse.csr_array:
    scale = sparse.diags_array(1.0 / np.sqrt(np.maximum(total_I, 1)))
    return sparse.csr_array(scale @ count_II @ scale)


def _nearest(similarity_II: sparse.csr_array, k: int) -> sparse.csr_array:
    if k < 1:
        raise ValueError(f"k: {k} neighbours; give 1 or more, or None for all")
    start, column = np.asarray(similarity_II.indptr), np.asarray(similarity_II.indices)
    value: NDArray[np.float64] = np.asarray(similarity_II.data, dtype=np.float64)
    row = np.repeat(np.arange(len(start) - 1), np.diff(start))
    order = np.lexsort((column, -value, row))
    kept = order[np.arange(len(order)) - start[row] < k]
    return sparse.csr_array((value[kept], (row[kept], column[kept])), shape=similarity_II.shape)
