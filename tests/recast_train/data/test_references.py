"""References and the ranking metric: values by hand, loops as oracles, and what ML-100K gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recast_train.data import Dataset, Prompts, load_ml100k, prompts, train_matrix
from recast_train.data import references as module
from recast_train.data.references import (
    choose_neighbours,
    history_scores,
    item_knn_scores,
    item_similarity,
    metrics_from_rank,
    popularity_scores,
    rank_metrics,
    references,
    target_rank,
    transition_similarity,
)


def questions(targets: list[int], seen: list[list[int]]) -> Prompts:
    """Prompts whose window is all that was seen."""
    window = max(map(len, seen))
    history = [[-1] * (window - len(past)) + past for past in seen]
    offset = np.concatenate([[0], np.cumsum([len(past) for past in seen])])
    flat = np.array([item for past in seen for item in past], dtype=np.int64)
    return Prompts(np.array(history), np.array(targets)[:, None], np.arange(len(targets)), offset, flat)


def random_dataset(seed: int, n_users: int = 12, n_items: int = 9) -> Dataset:
    rng = np.random.default_rng(seed)
    length_U = rng.integers(1, 12, n_users)
    offset = np.concatenate([[0], np.cumsum(length_U)])
    names = [f"i{i}" for i in range(n_items)], [f"u{u}" for u in range(n_users)]
    held_U = length_U // 4
    return Dataset(*names, [], rng.integers(0, n_items, offset[-1]), offset, length_U - 2 * held_U, length_U - held_U)


def test_metrics_by_hand() -> None:
    found = metrics_from_rank([1, 2, 10, 11, np.inf])
    assert found["hr@1"] == pytest.approx(1 / 5)
    assert found["hr@10"] == pytest.approx(3 / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 5)
    assert found["mrr@50"] == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 5)
    assert found["hr@20"] == found["hr@50"] == pytest.approx(4 / 5)
    assert metrics_from_rank([3, 1], cuts=(1, 2)) == {"hr@1": 0.5, "hr@2": 0.5, "ndcg@2": 0.5, "mrr@2": 0.5}


@pytest.mark.parametrize("ranks", [[], [0], [1, np.nan], [[1, 2]]])
def test_metrics_refuse_what_is_no_rank(ranks: list) -> None:
    with pytest.raises(ValueError, match="one rank per prompt"):
        metrics_from_rank(ranks)


def test_ties_count_against_the_target() -> None:
    ask = questions([0, 1, 2], [[3], [3], [3]])
    scores = np.array([[5.0, 5.0, 1.0, 9.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 2.0]])
    assert target_rank(scores, ask, seen_filter=False).tolist() == [3, 4, 1]
    assert target_rank(scores, ask, seen_filter=True).tolist() == [2, 3, 1]


def test_what_was_not_recommended_has_no_rank() -> None:
    ask = questions([0, 1], [[0, 2], [2]])
    scores = np.array([[9.0, 1.0, 1.0], [1.0, -np.inf, 0.0]])
    before = scores.copy()
    assert target_rank(scores, ask, seen_filter=True).tolist() == [np.inf, np.inf]
    assert target_rank(scores, ask, seen_filter=False).tolist() == [1, np.inf]
    assert np.array_equal(scores, before)


@pytest.mark.parametrize("scores", [np.zeros((1, 3)), np.zeros(3), np.array([[0.0, np.nan, 1.0]] * 2)])
def test_bad_scores_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give \\(prompts, items\\)"):
        target_rank(scores, questions([0, 1], [[2], [2]]), seen_filter=False)


@given(st.integers(0, 100), st.booleans())
def test_ranks_agree_with_a_loop(seed: int, seen_filter: bool) -> None:
    rng = np.random.default_rng(seed)
    seen = [rng.choice(8, size=rng.integers(1, 5), replace=False).tolist() for _ in range(6)]
    ask = questions(rng.integers(0, 8, 6).tolist(), seen)
    scores = rng.integers(0, 4, (6, 8)).astype(float)
    for row, rank in enumerate(target_rank(scores, ask, seen_filter)):
        hidden = set(seen[row]) if seen_filter else set()
        target = ask.target_N[row]
        ahead = [i for i in range(8) if i != target and i not in hidden and scores[row, i] >= scores[row, target]]
        assert rank == (np.inf if target in hidden else 1 + len(ahead))


def test_chunks_do_not_change_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_dataset(3)
    ask = prompts(data, "train")
    whole = references(data, ask, 2)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert references(data, ask, 2) == whole
    assert len(ask) > 6


def test_a_perfect_scorer_is_perfect_and_a_constant_one_is_last() -> None:
    ask = questions([0, 1], [[2], [2]])
    perfect = rank_metrics(lambda chunk: np.eye(20)[chunk.target_N], ask, seen_filter=True)
    constant = rank_metrics(lambda chunk: np.ones((len(chunk), 20)), ask, seen_filter=True)
    assert set(perfect) == {*(f"hr@{k}" for k in module.CUTS), *(f"ndcg@{k}" for k in module.CUTS[1:]), "mrr@50"}
    assert set(perfect.values()) == {1.0}
    assert [constant[f"hr@{k}"] for k in module.CUTS] == [0.0, 0.0, 0.0, 1.0, 1.0]  # last of 20, or of 19
    with pytest.raises(ValueError, match="one rank per prompt"):
        rank_metrics(lambda chunk: np.ones((len(chunk), 20)), ask.take(slice(0, 0)), seen_filter=True)


def test_popularity_by_hand() -> None:
    matrix = sparse.csr_array(np.array([[1.0, 0, 1], [1, 0, 0]]))
    assert popularity_scores(matrix).tolist() == [2, 0, 1]


@given(st.integers(0, 60), st.integers(1, 8), st.sampled_from([1.0, 0.7]))
def test_item_knn_agrees_with_a_loop(seed: int, k: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    dense = (rng.random((10, 7)) < 0.4).astype(float)
    length = np.linalg.norm(dense, axis=0)
    expected = np.zeros((3, 7))
    history = np.column_stack([np.full(3, -1), rng.integers(0, 7, (3, 4))])
    for row in range(3):
        for back, item in enumerate(history[row, ::-1][:4]):
            cosine = dense.T @ dense[:, item] / np.maximum(length * length[item], 1e-12)
            cosine[item] = 0.0
            near = np.argsort(-np.round(cosine, 12), kind="stable")[:k]
            expected[row, near] += decay**back * cosine[near]
    found = item_knn_scores(sparse.csr_array(dense), history, k, decay)
    assert np.allclose(found, expected)


def test_no_limit_means_all_neighbours() -> None:
    matrix = sparse.csr_array((np.random.default_rng(0).random((15, 8)) < 0.5).astype(float))
    every, near = item_similarity(matrix), item_similarity(matrix, 2)
    assert np.allclose(every.toarray(), item_similarity(matrix, 7).toarray())
    assert (np.diff(near.indptr) == 2).all()
    assert (every.diagonal() == 0).all()
    with pytest.raises(ValueError, match="k: 0 neighbours"):
        item_similarity(matrix, 0)


@given(st.integers(0, 40), st.integers(1, 4))
def test_transitions_agree_with_a_loop(seed: int, window: int) -> None:
    data = random_dataset(seed)
    expected, count = np.zeros((9, 9)), np.zeros(9)
    for user in range(data.n_users):
        past = data.sequence(user)[: data.train_end_U[user]]
        np.add.at(count, past, 1)
        for later in range(len(past)):
            for step in range(1, min(window, later) + 1):
                expected[past[later - step], past[later]] += 1 / step
    scale = 1 / np.sqrt(np.maximum(count, 1))
    assert np.allclose(transition_similarity(data, window).toarray(), scale[:, None] * expected * scale)


def test_an_empty_history_scores_nothing() -> None:
    similarity = sparse.csr_array(np.ones((3, 3)))
    assert history_scores(similarity, np.array([[-1, -1], [-1, 2]]), 0.5).tolist() == [[0] * 3, [1] * 3]


def test_the_number_of_neighbours_is_the_best_on_validation() -> None:
    data = random_dataset(5, n_users=40)
    ask = prompts(data, "validation")
    hits = {}
    for k in module.NEIGHBOURS:
        near = item_similarity(train_matrix(data), k)
        hits[k] = rank_metrics(lambda chunk, near=near: history_scores(near, chunk.history_NH, 1.0), ask, True)["hr@10"]
    assert hits[choose_neighbours(data, ask)] == max(hits.values())


def test_references_on_ml100k(ml100k_folder: Path) -> None:
    data = load_ml100k(ml100k_folder)
    ask = prompts(data, "validation")
    found = references(data, ask, choose_neighbours(data, ask))
    hits = {(name, policy): row["hr@10"] for name, both in found.items() for policy, row in both.items()}
    expected = {"popularity": (0.0472, 0.0214), "item_knn": (0.1480, 0.0571), "item_knn_recency": (0.1769, 0.0928)}
    for name, (filtered, unfiltered) in (expected | {"sequential": (0.1735, 0.1159)}).items():
        assert hits[name, "seen_filtered"] == pytest.approx(filtered, abs=0.004)
        assert hits[name, "unfiltered"] == pytest.approx(unfiltered, abs=0.004)


def test_the_whole_history_makes_the_textbook_form_weaker_on_ml100k(ml100k_folder: Path) -> None:
    data = load_ml100k(ml100k_folder)
    ask = prompts(data, "validation", max_history=1000)
    similarity = item_similarity(train_matrix(data), 20)
    textbook = rank_metrics(lambda chunk: history_scores(similarity, chunk.history_NH, 1.0), ask, seen_filter=True)
    assert textbook["hr@10"] == pytest.approx(0.100, abs=0.003)
