"""Files that come in and go out: the table's version, embeddings matched by item id, and bad files of every kind."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recast_train.semantic_id import SemanticIdError, SidTable, load_sids, read_embeddings, save_sids, tokenize_items
from recast_train.semantic_id.embeddings.embedding_files import order_of_rows
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE, VERSION

ITEMS = ["10", "2", "7"]
ROWS = np.array([[0.5, 1.0], [-2.0, 0.25], [3.0, 0.0]])


def write(path: Path, names: list[str] | None, rows: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".safetensors":
        save_file({"embeddings": rows}, path, None if names is None else {"items": json.dumps(names)})
    else:
        pl.DataFrame({"item": names, "embedding": rows.tolist()}).write_parquet(path)
    return path


def table() -> SidTable:
    return tokenize_items(np.random.default_rng(0).standard_normal((20, 3)), (4, 3), 0)


# Good files


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_rows_are_matched_by_item_id(tmp_path: Path, suffix: str) -> None:
    order = [3, 1, 0, 2]
    names, rows = [*ITEMS, "not in the data"], np.vstack([ROWS, [9.0, 9.0]])
    path = write(tmp_path / f"e{suffix}", [names[at] for at in order], np.ascontiguousarray(rows[order]))
    found = read_embeddings(path, ITEMS)
    assert found.dtype == np.float64
    assert np.array_equal(found, ROWS)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_rows_without_ids_are_in_the_numeric_order_of_the_ids(tmp_path: Path, suffix: str, dtype: type) -> None:
    by_number = np.ascontiguousarray(ROWS[[1, 2, 0]]).astype(dtype)  # 2, 7, 10
    path = write(tmp_path / f"e{suffix}", None, by_number)
    assert np.array_equal(read_embeddings(path, ITEMS), ROWS.astype(dtype).astype(np.float64))
    assert "in numeric order" in (order_of_rows(path) or "")
    assert order_of_rows(write(tmp_path / "e.safetensors", ITEMS, ROWS)) is None
    assert order_of_rows(write(tmp_path / "e.parquet", ITEMS, ROWS)) is None


@pytest.mark.parametrize("item", ["B00X", "", "01", "-3", "1.5", "i7", "\u0663"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_rows_without_ids_need_ids_that_are_numbers(tmp_path: Path, suffix: str, item: str) -> None:
    path = write(tmp_path / f"e{suffix}", None, ROWS)
    with pytest.raises(SemanticIdError, match=f"ids like '{item}', which have no numeric order; add the ids: .parquet with"):
        read_embeddings(path, ["10", item, "7"])


def test_parquet_takes_whole_number_ids_and_fixed_width_arrays(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item": [7, 2, 10], "embedding": ROWS[[2, 1, 0]].astype(np.float32)})
    assert isinstance(frame.schema["embedding"], pl.Array)
    frame.write_parquet(tmp_path / "e.parquet")
    assert np.array_equal(read_embeddings(tmp_path / "e.parquet", ITEMS), ROWS)


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    one = table()
    save_sids(one, tmp_path)
    assert load_sids(tmp_path).hash == one.hash == json.loads((tmp_path / HEADER_FILE).read_text())["sha256"]
    assert one.hash == table().hash
    assert SidTable(one.codes_IL[::-1].copy(), one.sizes, one.report).hash != one.hash
    assert SidTable(one.codes_IL, one.sizes, {}).hash != one.hash
    assert SidTable(one.codes_IL, (*one.sizes[:-1], 99), one.report).hash != one.hash


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    save_sids(table(), tmp_path)
    header = json.loads((tmp_path / HEADER_FILE).read_text())
    for version in (None, VERSION + 1, "1"):
        (tmp_path / HEADER_FILE).write_text(json.dumps(header | {"version": version}))
        with pytest.raises(SemanticIdError, match=f"has version {version!r}, this code reads {VERSION}; tokenize again"):
            load_sids(tmp_path)


# Bad files


@pytest.mark.parametrize(
    ("name", "ids", "rows", "said"),
    [
        ("e.npy", None, ROWS[:2], r"e.npy: 2 rows without item ids, the data has 3 items; add the ids"),
        ("e.npy", None, np.array([[1.0, 2.0], [np.nan, 0.0], [0.0, 0.0]]), "e.npy: row 1, dimension 0: nan; make it finite"),
        ("e.npy", None, np.array([["a"], ["b"], ["c"]]), "e.npy: <U1 of shape"),
        ("e.npy", None, ROWS.ravel(), r"float64 of shape \(6,\)"),
        ("e.npy", None, np.array([{}, {}], dtype=object), "not readable as an .npy array without pickled objects"),
        ("e.safetensors", ["10", "2"], ROWS, "2 item ids for 3 rows; give one each"),
        ("e.safetensors", ["10", "2", "8"], ROWS, r"no row for item '7' \(1 in all\); add them"),
        ("e.parquet", ["10", "2", "2"], ROWS, "row 2: item '2' is in row 1 already; keep one of them"),
        ("e.parquet", ["1", "2", "3"], ROWS, r"no row for item '10' \(2 in all\)"),
    ],
)
def test_embeddings_that_do_not_fit_say_file_row_and_mend(
    tmp_path: Path, name: str, ids: list[str] | None, rows: np.ndarray, said: str
) -> None:
    with pytest.raises(SemanticIdError, match=said):
        read_embeddings(write(tmp_path / name, ids, rows), ITEMS)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item": ITEMS}, r"no column 'embedding' among \['item'\]"),
        ({"item": [0.5, 1.5, 2.5], "embedding": ROWS.tolist()}, "column 'item' is Float64"),
        ({"item": ITEMS, "embedding": ["a", "b", "c"]}, "column 'embedding' is String"),
        ({"item": ITEMS, "embedding": [["a"], ["b"], ["c"]]}, r"column 'embedding' is List\(String\)"),
        ({"item": ITEMS, "embedding": [[1.0, 2.0], [1.0], [1.0, 2.0]]}, "row 1: an empty cell, or not 2 numbers"),
        ({"item": ITEMS, "embedding": [[1.0, 2.0], None, [1.0, 2.0]]}, "row 1: an empty cell"),
        ({"item": ITEMS, "embedding": [[1.0, None], [1.0, 2.0], [1.0, 2.0]]}, "row 0, dimension 1: nan; make it finite"),
        ({"item": ITEMS, "embedding": [None, [1.0, 2.0], [1.0, 2.0]]}, "row 0: an empty cell"),
        ({"item": ["10", None, "7"], "embedding": ROWS.tolist()}, "row 1: an empty cell"),
        ({"item": ITEMS, "embedding": [[], [], []]}, r"column 'embedding' is List\(Null\)"),
    ],
)
def test_parquet_tables_that_are_no_embeddings(tmp_path: Path, columns: dict[str, list], said: str) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(SemanticIdError, match=said):
        read_embeddings(tmp_path / "e.parquet", ITEMS)


def test_names_that_no_reader_takes(tmp_path: Path) -> None:
    for name, said in (
        ("e.csv", "its name ends in '.csv'; give one of .npy"),
        ("e.parquet", "cannot be read"),
        ("e.npy", "not readable"),
    ):
        with pytest.raises(SemanticIdError, match=said):
            read_embeddings(tmp_path / name, ITEMS)
    save_file({"other": ROWS}, tmp_path / "e.safetensors")
    with pytest.raises(SemanticIdError, match=r"no tensor 'embeddings' among \['other'\]"):
        read_embeddings(tmp_path / "e.safetensors", ITEMS)
    for metadata in ('{"a": 1}', "[1, 2, 3]", "not JSON"):
        save_file({"embeddings": ROWS}, tmp_path / "e.safetensors", {"items": metadata})
        with pytest.raises(SemanticIdError, match=r"JSON list of strings|not readable as a safetensors file"):
            read_embeddings(tmp_path / "e.safetensors", ITEMS)


Damage = Callable[[bytes, np.random.Generator], bytes]
DAMAGES: dict[str, Damage] = {
    "cut off": lambda content, rng: content[: rng.integers(0, len(content))],
    "noise in front": lambda content, rng: rng.bytes(16) + content[16:],
    "a bracket": lambda content, rng: content[:10] + b"((" + content[12:],
    "all noise": lambda content, rng: rng.bytes(len(content)),
    "zeros inside": lambda content, rng: content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_damaged_embedding_files_are_one_error(tmp_path: Path, suffix: str, damage: str, seed: int) -> None:
    path = write(tmp_path / f"e{suffix}", ITEMS, ROWS)
    path.write_bytes(DAMAGES[damage](path.read_bytes(), np.random.default_rng(seed)))
    with pytest.raises(SemanticIdError, match=str(path)):
        read_embeddings(path, ITEMS)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [CODES_FILE, HEADER_FILE])
def test_damaged_tables_are_one_error(tmp_path: Path, name: str, damage: str) -> None:
    save_sids(table(), tmp_path)
    whole = (tmp_path / name).read_bytes()
    for seed in range(3):
        (tmp_path / name).write_bytes(DAMAGES[damage](whole, np.random.default_rng(seed)))
        with pytest.raises(SemanticIdError, match=str(tmp_path)):
            load_sids(tmp_path)


HEADERS = {
    "a list": lambda header: [header],
    "a number": lambda header: 3,
    "no sizes": lambda header: {key: value for key, value in header.items() if key != "sizes"},
    "no report": lambda header: {key: value for key, value in header.items() if key != "report"},
    "sizes null": lambda header: header | {"sizes": None},
    "sizes text": lambda header: header | {"sizes": ["4", "3", "5"]},
    "sizes broken": lambda header: header | {"sizes": [4.5, 3.0, 5.0]},
    "sizes nested": lambda header: header | {"sizes": [[4], [3], [5]]},
    "sizes huge": lambda header: header | {"sizes": [10**40] * 3},
    "sizes negative": lambda header: header | {"sizes": [-4, 3, 5]},
    "sizes true": lambda header: header | {"sizes": [True, True, True]},
    "report a list": lambda header: header | {"report": [1]},
    "report NaN": lambda header: header | {"report": {"prefixes": float("nan")}},
    "no items": lambda header: {key: value for key, value in header.items() if key != "items"},
    "items of numbers": lambda header: header | {"items": list(range(20))},
    "too few items": lambda header: header | {"items": ["a"]},
    "an item twice": lambda header: header | {"items": ["a"] * 20},
    "hash a list": lambda header: header | {"sha256": []},
}


@pytest.mark.parametrize("edit", HEADERS)
def test_edited_headers_are_one_error(tmp_path: Path, edit: str) -> None:
    save_sids(table(), tmp_path)
    header = json.loads((tmp_path / HEADER_FILE).read_text())
    (tmp_path / HEADER_FILE).write_text(json.dumps(HEADERS[edit](header)))
    with pytest.raises(SemanticIdError, match=str(tmp_path)):
        load_sids(tmp_path)


CODES = {
    "another name": {"codes": np.zeros((2, 3), dtype=np.int64)},
    "floats": {"codes_IL": np.zeros((2, 3))},
    "32 bits": {"codes_IL": np.zeros((2, 3), dtype=np.int32)},
    "one axis": {"codes_IL": np.arange(3)},
    "no items": {"codes_IL": np.zeros((0, 3), dtype=np.int64)},
    "negative": {"codes_IL": np.full((1, 3), -1)},
    "wrong hash": {"codes_IL": np.zeros((1, 3), dtype=np.int64)},
}


@pytest.mark.parametrize("codes", CODES)
def test_other_codes_are_one_error(tmp_path: Path, codes: str) -> None:
    save_sids(table(), tmp_path)
    save_file(CODES[codes], tmp_path / CODES_FILE)
    with pytest.raises(SemanticIdError, match=str(tmp_path)):
        load_sids(tmp_path)


def test_nothing_is_saved_that_cannot_be_loaded() -> None:
    one = table()
    for report in ({"error": float("inf")}, {"error": np.float64}, []):
        with pytest.raises(SemanticIdError, match="report: "):
            SidTable(one.codes_IL, one.sizes, report)  # type: ignore[arg-type]
