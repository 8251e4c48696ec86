"""Semantic IDs: the SVD against a dense one, a tiny BERT on disk, residual k-means, agreement by hand, files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sid_world import interactions

from recast_train.semantic_id import (
    SemanticIdError,
    SidTable,
    load_sids,
    prefix_agreement,
    save_sids,
    svd_embeddings,
    tokenize_items,
)
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE


def blobs(seed: int, n_blobs: int = 4, each: int = 10, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Points around far-apart centres, shuffled, and the blob of each."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.repeat(np.arange(n_blobs), each))
    return 100.0 * np.eye(n_blobs, dim)[blob] + rng.standard_normal((len(blob), dim)), blob


# Residual k-means


def test_far_apart_blobs_become_the_first_level() -> None:
    points, blob = blobs(seed=0)
    codes = tokenize_items(points, (4, 3), seed=0).codes_IL
    assert len(set(zip(blob.tolist(), codes[:, 0].tolist(), strict=True))) == 4
    assert len(np.unique(codes[:, 1])) == 3


def test_the_second_level_clusters_what_the_first_left() -> None:
    coarse, fine = np.divmod(np.arange(12), 4)
    points = np.stack([100.0 * coarse, 1.0 * fine], axis=1)  # the same four offsets around three centres
    codes = tokenize_items(points, (3, 4), seed=1).codes_IL
    for level, truth in ((0, coarse), (1, fine)):
        assert len(set(zip(truth.tolist(), codes[:, level].tolist(), strict=True))) == (3, 4)[level]
    assert (codes[:, 2] == 0).all()


def test_the_index_counts_outwards_and_ties_follow_the_catalog() -> None:
    points = np.array([[3.0], [-2.0], [0.0], [-1.0], [0.0], [1000.0]])  # the centre of the first five is 0
    codes = tokenize_items(points, (2,), seed=0).codes_IL
    assert codes[:, 1].tolist() == [4, 3, 0, 2, 1, 0]


@settings(max_examples=8, deadline=None)  # k-means is slow to start
@given(st.integers(8, 40), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 3))
def test_every_item_has_its_own_id(n_items: int, sizes: list[int], seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((n_items, 3))
    table = tokenize_items(points, sizes, seed)
    assert len(np.unique(table.codes_IL, axis=0)) == n_items
    assert table.codes_IL.shape == (n_items, len(sizes) + 1)
    assert table.sizes[:-1] == tuple(sizes)
    assert table.sizes[-1] == table.report["largest_cluster"] == table.codes_IL[:, -1].max() + 1
    assert table.report["prefixes"][-1] == n_items
    assert np.array_equal(tokenize_items(points, sizes, seed).codes_IL, table.codes_IL)


def test_the_report_by_hand() -> None:
    points = np.array([[0.0], [0.1], [0.2], [100.0]])
    report = tokenize_items(points, (2,), seed=0).report
    assert report["utilisation"] == [1.0, 1.0]
    assert report["perplexity"][0] == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert report["perplexity"][1] == pytest.approx(0.5**-0.5 * 0.25**-0.5)  # indices 0, 1, 2, 0
    assert (report["prefixes"], report["collisions"], report["largest_cluster"]) == ([2, 4], 3, 3)
    assert "agreement" not in report


@pytest.mark.parametrize(
    ("points", "sizes", "said"),
    [
        (np.array([[0.0, np.nan], [1.0, 2.0]]), (2,), "nan at item 0, dimension 1"),
        (np.array([[0.0, 1.0], [np.inf, 2.0]]), (2,), "inf at item 1, dimension 0"),
        (np.empty((0, 4)), (2,), r"shape \(0, 4\)"),
        (np.zeros(4), (2,), r"shape \(4,\)"),
        (np.eye(3), (4,), "level 1 has 4 codes for 3 different vectors"),
        (np.ones((9, 2)), (2,), "level 1 has 2 codes for 1 different vectors"),
        (np.eye(3), (3, 2), "level 2 has 2 codes for 1 different vectors"),
        (np.eye(3), (), r"sizes: \(\)"),
        (np.eye(3), (2, 0), r"sizes: \(2, 0\)"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(points: np.ndarray, sizes: tuple[int, ...], said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        tokenize_items(points, sizes, seed=0)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (np.array([[0, 0], [2, 0]]), "not within sizes"),
        (np.array([[0, 0], [-1, 0]]), "not within sizes"),
        (np.array([[0], [1]]), r"int64 \(2, 1\) for 2 levels"),
        (np.array([[0.0, 0.0]]), r"float64 \(1, 2\)"),
        (np.empty((0, 2), dtype=np.int64), r"int64 \(0, 2\)"),
    ],
)
def test_a_table_refuses_codes_that_are_no_ids(codes: np.ndarray, said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        SidTable(codes, (2, 2))


# Agreement


@given(st.integers(0, 50))
def test_agreement_is_the_mean_over_pairs(seed: int) -> None:
    matrix = interactions(seed, (6, 9))
    codes = np.column_stack([np.random.default_rng(seed).integers(0, 2, (9, 2)), np.arange(9)])
    dense = matrix.toarray()
    unit = dense / np.maximum(np.linalg.norm(dense, axis=0), 1e-300)
    cosine = unit.T @ unit
    pairs = [(i, j) for i in range(9) for j in range(i)]
    for level, name in enumerate(["random", "level_1", "level_2"]):
        values = [cosine[i, j] for i, j in pairs if (codes[i, :level] == codes[j, :level]).all()]
        expected = pytest.approx(np.mean(values)) if values else None
        assert prefix_agreement(codes, matrix)[name] == expected


def test_agreement_is_none_where_no_pair_shares_a_prefix() -> None:
    codes = np.array([[0, 0], [1, 0], [2, 0]])
    assert prefix_agreement(codes, interactions(0, (5, 3)))["level_1"] is None
    with pytest.raises(SemanticIdError, match="4 items, codes: 3"):
        prefix_agreement(codes, interactions(0, (5, 4)))


def test_codes_of_train_embeddings_agree_with_taste_and_shuffled_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    genre_U, genre_I = rng.integers(0, 4, 200), rng.integers(0, 4, 60)
    likes = np.where(genre_U[:, None] == genre_I, 0.4, 0.05)
    matrix = sparse.csr_array((rng.random((200, 60)) < likes).astype(np.float64))
    table = tokenize_items(svd_embeddings(matrix, 8, seed=0), (4, 4), 0, matrix)
    agreement = table.report["agreement"]
    assert agreement["level_1"] > 1.5 * agreement["random"]
    shuffled = prefix_agreement(rng.permutation(table.codes_IL), matrix)
    assert shuffled["random"] == pytest.approx(agreement["random"])
    assert shuffled["level_1"] == pytest.approx(agreement["random"], rel=0.2)


# Files


@pytest.fixture
def saved(tmp_path: Path) -> tuple[SidTable, Path]:
    points, _ = blobs(seed=1)
    table = tokenize_items(points, (4, 3), 0, interactions(0, (30, 40)))
    save_sids(table, tmp_path / "sids")
    return table, tmp_path / "sids"


def test_a_saved_table_comes_back(saved: tuple[SidTable, Path]) -> None:
    table, folder = saved
    loaded = load_sids(folder)
    assert np.array_equal(loaded.codes_IL, table.codes_IL)
    assert (loaded.sizes, loaded.report) == (table.sizes, table.report)
    assert sorted(path.name for path in folder.iterdir()) == [HEADER_FILE, CODES_FILE]


@pytest.mark.parametrize("name", [HEADER_FILE, CODES_FILE])
@pytest.mark.parametrize("left", [0, 10, -1])
def test_a_cut_off_file_is_refused(saved: tuple[SidTable, Path], name: str, left: int) -> None:
    path = saved[1] / name
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(SemanticIdError, match="tokenize again"):
        load_sids(saved[1])


@pytest.mark.parametrize("edit", [{"report": {}}, {"sizes": [9, 9, 99]}, {"sha256": "0"}])
def test_an_edited_header_is_refused(saved: tuple[SidTable, Path], edit: dict[str, object]) -> None:
    path = saved[1] / HEADER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(SemanticIdError, match="content has sha256"):
        load_sids(saved[1])


def test_codes_of_another_table_are_refused(saved: tuple[SidTable, Path], tmp_path: Path) -> None:
    table, folder = saved
    save_sids(SidTable(table.codes_IL[::-1].copy(), table.sizes, table.report), tmp_path / "other")
    (folder / CODES_FILE).write_bytes((tmp_path / "other" / CODES_FILE).read_bytes())
    with pytest.raises(SemanticIdError, match="content has sha256"):
        load_sids(folder)
    (folder / CODES_FILE).unlink()
    with pytest.raises(SemanticIdError, match="not a readable table"):
        load_sids(folder)


def test_the_package_is_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'sklearn'}"
    code = f"import sys, recast_train.semantic_id; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
