"""The settings, the table of a data set, and `recast-train tokenize`, on a tiny atomic file."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sid_world import tiny_dataset

from recast_sim.configio import load_config
from recast_train import cli
from recast_train.data import load_source, train_matrix
from recast_train.engine import Engine, EngineConfig
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.run_task import prepare
from recast_train.semantic_id import (
    RqVaeConfig,
    SemanticIdError,
    SidConfig,
    embed_items,
    load_sids,
    make_sids,
    prefix_agreement,
    svd_embeddings,
    tokenize_items,
)
from recast_train.semantic_id.make import heldout_matrix


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 0}, "SidConfig.dim: 0 must be at least 1"),
        ({"sizes": ()}, r"SidConfig.sizes: \(\) must hold at least 1"),
        ({"sizes": (4, 1)}, r"SidConfig.sizes.1: 1 must be at least 2"),
        ({"embeddings": "file"}, "SidConfig.embeddings_file: None is wanted where embeddings = 'file'"),
        (
            {"embeddings_file": Path("e.npy")},
            "SidConfig.embeddings_file: e.npy is wanted where embeddings = 'file', and nowhere",
        ),
        ({"text_model": Path("bert")}, "SidConfig.text_model: bert has no effect; set embeddings = 'text'"),
        ({"embeddings": "text", "dim": 8}, "SidConfig.dim: 8 has no effect; set embeddings = 'svd'"),
        ({"rqvae": RqVaeConfig(epochs=3)}, "SidConfig.rqvae: .* has no effect; set method = 'rqvae'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        SidConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden": (8, 0)}, r"RqVaeConfig.hidden.1: 0 must be at least 1"),
        ({"latent": 0}, "RqVaeConfig.latent: 0 must be at least 1"),
        ({"epochs": 0}, "RqVaeConfig.epochs: 0 must be at least 1"),
        ({"batch": 0}, "RqVaeConfig.batch: 0 must be at least 1"),
        ({"learning_rate": float("nan")}, "RqVaeConfig.learning_rate: nan must be finite"),
        ({"beta": -1.0}, "RqVaeConfig.beta: -1.0 must be at least 0"),
        ({"revive_every": -1}, r"RqVaeConfig.revive_every: -1 must be at least 0"),
    ],
)
def test_settings_of_rqvae_are_checked(settings: dict, said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        RqVaeConfig(**settings)


def test_heldout_is_what_train_is_not() -> None:
    dataset = tiny_dataset()
    heldout = heldout_matrix(dataset).toarray()
    for user in range(dataset.n_users):
        late = dataset.sequence(user)[dataset.train_end_U[user] :]
        assert np.flatnonzero(heldout[user]).tolist() == sorted(set(late.tolist()))
    assert set(heldout.ravel()) == {0.0, 1.0}


def test_a_recipe_makes_the_table_of_its_parts() -> None:
    dataset, config = tiny_dataset(), SidConfig(dim=4, sizes=(4, 3))
    matrix = train_matrix(dataset)
    found, wanted = make_sids(config, dataset, 3), tokenize_items(svd_embeddings(matrix, 4, 3), (4, 3), 3, matrix)
    assert np.array_equal(found.codes_IL, wanted.codes_IL)
    report = found.report
    assert report["items_without_embedding"] == 0
    assert report["agreement"] == report["train_agreement"] == wanted.report["agreement"]
    assert report["heldout_agreement"] == prefix_agreement(found.codes_IL, heldout_matrix(dataset))
    for split in ("train", "heldout"):
        agreement, lift = report[f"{split}_agreement"], report[f"{split}_lift"]
        assert lift == {name: agreement[name] / agreement["random"] for name in ("level_1", "level_2")}


def test_a_given_file_is_read_and_heldout_items_stay_out_of_the_codes(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    rows = np.random.default_rng(0).standard_normal((dataset.n_items, 5))
    file = tmp_path / "e.parquet"
    pl.DataFrame({"item": dataset.items[::-1], "embedding": rows[::-1].tolist()}).write_parquet(file)
    config = SidConfig(embeddings="file", embeddings_file=file, sizes=(5, 8), collisions="nearest")
    assert np.array_equal(embed_items(config, dataset, train_matrix(dataset), 0), rows)
    codes = make_sids(config, dataset, 0).codes_IL
    assert np.array_equal(codes, tokenize_items(rows, (5, 8), 0, collisions="nearest").codes_IL)


# The command


def recipe(folder: Path, sids: str) -> Path:
    dataset = tiny_dataset()
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user, name in enumerate(dataset.users):
        lines += [f"{name}\t{dataset.items[item]}\t1\t{at}" for at, item in enumerate(dataset.sequence(user))]
    (folder / "tiny.inter").write_text("\n".join(lines) + "\n")
    file = folder / "tiny.toml"
    data = f'data = {{format = "atomic", path = "{folder / "tiny.inter"}", core = 1}}'
    file.write_text(f"{data}\n[rl]\nsteps = 3\n[sids]\n{sids}\n")
    return file


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-train", "tokenize", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(str(stop.value.code))


def test_the_command_makes_the_table_that_a_run_makes(tmp_path: Path, monkeypatch, capsys) -> None:
    file, out = recipe(tmp_path, "dim = 4\nsizes = [4, 3]"), tmp_path / "out"
    assert call(monkeypatch, file, "--out", out, "--json", "--seed", 5) == 0
    said, table = json.loads(capsys.readouterr().out), load_sids(out)
    assert (said["out"], said["sha256"], said["items"], said["sizes"]) == (str(out), table.hash, 20, list(table.sizes))
    assert table.report.items() <= said.items()
    config = load_config(RealConfig, file)
    (tmp_path / "run").mkdir()
    with Engine(EngineConfig()) as engine:
        prepare(config, load_source(config.data), 5, tmp_path / "run", lambda *_: None, engine)
    assert load_sids(tmp_path / "run" / "sids").hash == table.hash


def test_the_command_prints_tables_and_does_not_overwrite(tmp_path: Path, monkeypatch, capsys) -> None:
    file, out = recipe(tmp_path, "dim = 4\nsizes = [4, 3]"), tmp_path / "out"
    options = ("--sids.method", "rqvae", "--sids.rqvae.epochs", 3, "--sids.collisions", "nearest", "--sids.sizes", 8, 4)
    assert call(monkeypatch, file, "--out", out, *options) == 0
    shown, table = capsys.readouterr().out, load_sids(out)
    assert table.sizes == (8, 4)
    assert f"{table.report['moved']} moved to the nearest free code: reconstruction error" in shown
    for words in ("by rqvae", "| share level 1 ", "recast's structural score takes a shared prefix", table.hash, str(out)):
        assert words in shown
    assert call(monkeypatch, file, "--out", out) == 2
    assert "holds a table of semantic IDs already; choose another --out" in capsys.readouterr().err
    assert load_sids(out).hash == table.hash


def test_the_command_reads_the_whole_recipe_and_offers_its_own_options(tmp_path: Path, monkeypatch, capsys) -> None:
    file = recipe(tmp_path, "dim = 4\nsizes = [4, 3]")
    assert call(monkeypatch, file, "--out", tmp_path / "out", "--rl.steps", 3) == 2
    assert "rl.steps" in capsys.readouterr().err
    assert call(monkeypatch, file, "--out", tmp_path / "out", "--sids.text-model", "bert") == 2
    assert "SidConfig.text_model: bert has no effect" in capsys.readouterr().err
    file.write_text(file.read_text() + "[rl2]\nsteps = 1\n")
    assert call(monkeypatch, file, "--out", tmp_path / "out") == 2
    assert "unknown key 'rl2'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
