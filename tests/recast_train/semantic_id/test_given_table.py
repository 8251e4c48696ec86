"""Tables of semantic IDs from outside: every form that is read, items that share an ID, and what is refused where."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sid_world import tiny_dataset

from recast_train.data import GivenSids
from recast_train.semantic_id import (
    SemanticIdError,
    SidConfig,
    SidTable,
    given_table,
    load_sids,
    make_sids,
    read_sid_file,
    save_sids,
    tokenize_items,
)

CODES = {"7": (1, 0, 2), "12": (0, 3, 1), "3": (1, 0, 2), "5": (2, 1, 0)}  # 7 and 3 share one


def tokens(codes: tuple[int, ...], prefix: str = "") -> list[str]:
    return [f"<{prefix}{letter}_{code}>" for letter, code in zip("abc", codes, strict=True)]


def write_index(path: Path, values: dict[str, object]) -> Path:
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    "form",
    [
        tokens,
        list,
        lambda codes: "".join(tokens(codes)),
        lambda codes: " ".join(tokens(codes)),
        lambda codes: tokens(codes, "s_"),
        lambda codes: f"<|sid_begin|>{''.join(tokens(codes, 's_'))}<|sid_end|>",
    ],
)
def test_each_form_of_a_value_is_read(tmp_path: Path, form) -> None:
    values = {item: form(codes) for item, codes in CODES.items()}
    assert read_sid_file(write_index(tmp_path / "x.index.json", values)) == (CODES, (3, 4, 3))
    for item, sid in (("item", "codes"), ("item_id", "sid"), ("item", "semantic_id")):
        pl.DataFrame({item: list(values), sid: list(values.values())}).write_parquet(tmp_path / "x.parquet")
        assert read_sid_file(tmp_path / "x.parquet") == (CODES, (3, 4, 3))
    pl.DataFrame({"item": [int(item) for item in values], "codes": list(CODES.values())}).write_parquet(tmp_path / "x.parquet")
    assert read_sid_file(tmp_path / "x.parquet")[0] == CODES


def test_a_table_of_tokenize_keeps_its_item_ids(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    made = make_sids(SidConfig(dim=4, sizes=(4, 3)), dataset, 0)
    save_sids(made, tmp_path)
    assert load_sids(tmp_path).items == tuple(dataset.items)
    for path in (tmp_path, tmp_path / "sids.json", tmp_path / "sids.safetensors"):
        again = make_sids(SidConfig(path=path), dataset, 0)
        assert (again.codes_IL == made.codes_IL).all()
        assert (again.sizes, again.items) == (made.sizes, made.items)
        assert again.report["train_agreement"] == made.report["train_agreement"]
    save_sids(SidTable(made.codes_IL, made.sizes), tmp_path / "nameless")
    with pytest.raises(SemanticIdError, match="have no item ids; tokenize again"):
        read_sid_file(tmp_path / "nameless")


def test_rows_are_laid_on_the_items_of_the_data(tmp_path: Path) -> None:
    dataset = tiny_dataset(items=6)
    codes = {item: [place % 2, place // 2] for place, item in enumerate(reversed(dataset.items))}
    file = write_index(tmp_path / "x.json", codes | {"elsewhere": [8, 9]})
    table = make_sids(SidConfig(path=file), dataset, 0)
    assert table.codes_IL.tolist() == [codes[item] for item in dataset.items]
    assert table.sizes == (9, 10)  # a code of an item that is not in the data is one of the codebook
    assert table.report["left_out"] == 1
    assert table.report["collisions"] == 0
    del codes[dataset.items[3]]
    with pytest.raises(SemanticIdError, match=r"no semantic ID for item 'i3' \(1 of 6 in all\); its ids are 'i5', 'i4', 'i2'"):
        make_sids(SidConfig(path=write_index(file, codes)), dataset, 0)


def test_items_that_share_an_id_keep_it_or_are_told_apart() -> None:
    given = GivenSids.of(CODES)  # items in string order: 12, 3, 5, 7
    kept = given_table(given, None)
    assert kept.codes_IL.tolist() == [list(CODES[item]) for item in ("12", "3", "5", "7")]
    assert (kept.report["collisions"], kept.report["largest_cluster"], kept.report["kept"]) == (2, 2, True)
    apart = given_table(given, "level")
    assert apart.codes_IL[:, -1].tolist() == [0, 0, 0, 1]
    assert apart.sizes == (3, 4, 3, 2)
    assert len(np.unique(apart.codes_IL, axis=0)) == 4
    alone = given_table(GivenSids.of({item: CODES[item] for item in ("12", "3", "5")}), "level")
    assert alone.sizes == (2 + 1, 4, 3)  # nothing to tell apart, no level
    with pytest.raises(SemanticIdError, match=r"SidConfig\.collisions: 'nearest' needs embeddings"):
        given_table(given, "nearest")


def test_ids_that_are_made_may_be_shared_too() -> None:
    vectors = np.repeat(np.eye(4), 3, axis=0) + 1e-3 * np.arange(12)[:, None]
    table = tokenize_items(vectors, (4,), 0, collisions="keep")
    assert len(np.unique(table.codes_IL, axis=0)) == 4
    assert table.report["collisions"] == 12
    assert table.report["kept"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"1": [0, -1]}, r"item '1': found \[0, -1\]"),
        ({"1": [0, True]}, "item '1': found"),
        ({"1": [0.5]}, "item '1': found"),
        ({"1": []}, "item '1': found"),
        ({"1": None}, "item '1': found"),
        ({"1": "word"}, "item '1': found 'word'"),
        ({"1": ["<b_1>", "<a_1>"]}, "item '1': found"),
        ({"1": [1, 2], "2": [1]}, "item '2': found .* write 2 tokens"),
        ({}, "not an object of items"),
    ],
)
def test_an_index_that_is_none_is_named(tmp_path: Path, values: dict[str, object], said: str) -> None:
    with pytest.raises(SemanticIdError, match=said) as caught:
        read_sid_file(write_index(tmp_path / "x.json", values))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item": ["1"], "more": [[1]]}, "0 of the columns codes, sid, semantic_id among"),
        ({"item": ["1"], "codes": [[1]], "sid": ["<a_1>"]}, "2 of the columns"),
        ({"item": [0.5], "codes": [[1]]}, "column 'item' is Float64"),
        ({"item": ["1", "1"], "codes": [[1], [2]]}, "row 1, column item: found '1'"),
        ({"item": ["1", None], "codes": [[1], [2]]}, "row 1, column item: found None"),
        ({"item": ["1", "2"], "codes": [[1], [2, 3]]}, "row 1, column codes: found .* write 1 levels"),
        ({"item": ["1"], "codes": [0.5]}, "row 0, column codes: found '0.5'; write whole numbers from 0"),
    ],
)
def test_a_parquet_table_that_is_none_is_named(tmp_path: Path, columns: dict[str, list], said: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(SemanticIdError, match=said):
        read_sid_file(tmp_path / "x.parquet")


def test_files_that_are_no_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(SemanticIdError, match=r"there is no such file or folder; mend sids\.path"):
        read_sid_file(tmp_path / "lost.json")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(SemanticIdError, match=r"its name ends in '\.txt'"):
        read_sid_file(tmp_path / "x.txt")
    for settings in ({"dim": 8}, {"method": "rqvae"}, {"sizes": (4, 4)}, {"embeddings": "text"}, {"collisions": "nearest"}):
        with pytest.raises(SemanticIdError, match=r"SidConfig\.\w+: .*path"):
            SidConfig(path=tmp_path, **settings)
