"""Readers of every format: round trips, what they refuse and where they say it is, and the source made of them."""

import gzip
import json
import lzma
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_files import (
    CHATS,
    LOG,
    PROMPTS,
    SIDS,
    TITLES,
    atomic_text,
    broken_chat,
    chat,
    csv_text,
    index_text,
    item_name,
    minionerec_rows,
    open_sid,
    sequence_text,
    table_frame,
    table_text,
    write_minionerec,
    write_openonerec,
)
from hypothesis import given
from hypothesis import strategies as st
from plain_readers import prompts_of

from recast_train.data import (
    DataConfig,
    DataError,
    TableColumns,
    load_source,
    read_index,
    read_minionerec,
    read_openonerec,
    read_sequences,
    read_source,
    read_table,
    recognise,
)
from recast_train.data.readers import plain_table as table_module
from recast_train.data.readers import sequences as sequences_module
from recast_train.data.readers.minionerec import _parsed
from recast_train.supervised.windows import Windows


def refused(call: Callable[[], object], path: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        call()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Round trips


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz", ".txt.gz"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_sequences_round_trip(tmp_path: Path, suffix: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences_module, "CHUNK", chunk)
    path, data = tmp_path / f"a{suffix}", sequence_text().encode()
    path.write_bytes({".txt": bytes, ".txt.xz": lzma.compress, ".txt.gz": gzip.compress}[suffix](data))
    assert read_sequences(path).rows() == [(user, item) for user, item, _ in LOG]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_tables_round_trip(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "CHUNK", chunk)
    (tmp_path / "a.csv").write_text(table_text())
    table_frame().write_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        assert read_table(tmp_path / name).rows() == LOG
        ordered = read_table(tmp_path / name, TableColumns(timestamp=""))
        assert ordered.rows() == [(user, item) for user, item, _ in LOG]


def test_table_names_types_and_precise_times(tmp_path: Path) -> None:
    nano = 1_700_000_000_000_000_001  # a float would round it
    frame = pl.DataFrame({"who": [3, 4], "x": [None, "y"], "what": ["a", "b"], "when": [nano, nano + 1]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    columns = TableColumns("who", "what", "when")
    for name in ("a.parquet", "a.csv"):
        assert read_table(tmp_path / name, columns).rows() == [("3", "a", nano), ("4", "b", nano + 1)]
    dated = frame.with_columns(when=pl.Series([datetime(1970, 1, 1, 0, 0, 1), datetime(1970, 1, 1, 0, 0, 2)]))
    dated.write_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", columns)["timestamp"].to_list() == [1_000_000, 2_000_000]


@given(st.lists(st.one_of(st.text(), st.integers(-(10**6), 10**6)), max_size=6))
def test_python_lists_are_read_as_python_reads_them(values: list[str | int]) -> None:
    found = _parsed(Path("x"), 1, "c", repr(values))
    assert found == [str(value) for value in values]


def test_items_of_an_index_may_share_an_sid(tmp_path: Path) -> None:
    (tmp_path / "a.index.json").write_text('{"0": ["<a_1>", "<b_0>"], "9": ["<a_1>", "<b_0>"], "4": ["<a_0>", "<b_2>"]}')
    assert read_index(tmp_path / "a.index.json") == {"0": (1, 0), "9": (1, 0), "4": (0, 2)}


def test_minionerec_gives_prompts_titles_and_sids(tmp_path: Path) -> None:
    source = load_source(DataConfig("minionerec", write_minionerec(tmp_path / "m"), max_history=3))
    assert source.items == sorted(SIDS)
    assert source.sids is not None
    assert source.sids.codes_IL.tolist() == [list(SIDS[item]) for item in source.items]
    assert source.sizes == (3, 3, 2)
    assert source.titles == [TITLES[item] for item in source.items]
    for name, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        found = source.split(split)
        for row, (user, history, target) in enumerate(PROMPTS[name]):
            window = [int(item) for item in history[-3:]]  # here an item's place is its id
            assert found.history_NH[row].tolist() == [-1] * (3 - len(window)) + window
            assert found.targets_NT[row].tolist() == [int(target)]
            assert source.users[found.user_N[row]] == user
            past = found.seen_item[found.seen_offset[row] : found.seen_offset[row + 1]]
            assert past.tolist() == [int(item) for item in history]


def test_openonerec_gives_all_targets_and_the_chat(tmp_path: Path) -> None:
    source = load_source(DataConfig("openonerec", write_openonerec(tmp_path / "o"), max_history=2))
    assert source.codes_IL is not None
    assert source.items == sorted(map(item_name, SIDS))
    assert {source.items[place]: tuple(codes) for place, codes in enumerate(source.codes_IL.tolist())} == {
        item_name(item): SIDS[item] for item in SIDS
    }
    for name, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        found = source.split(split)
        assert found.chat_N is not None
        for row, (history, targets) in enumerate(CHATS[name]):
            places = [source.items.index(item_name(item)) for item in history]
            padded = [-1] * (2 - len(places[-2:])) + places[-2:]
            assert found.history_NH[row].tolist() == padded
            wanted = [source.items.index(item_name(item)) for item in targets]
            assert [item for item in found.targets_NT[row].tolist() if item >= 0] == wanted
            assert found.chat_N[row] == chat(history, targets, parts=row % 2 == 1)[:-1]
    assert source.train.targets_NT.shape == (3, 3)
    taken = source.train.take(np.array([2, 1]))
    assert taken.chat_N is not None
    assert taken.chat_N[0] == source.train.chat_N[2]  # pyright: ignore[reportOptionalSubscript]
    assert taken.targets_NT.tolist() == source.train.targets_NT[[2, 1]].tolist()


def test_batches_of_rows_read_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_openonerec(tmp_path)
    whole = read_openonerec(tmp_path / "train.parquet")
    for batch in (1, 2, 3):
        monkeypatch.setattr("recast_train.data.readers.recif.BATCH", batch)
        assert read_openonerec(tmp_path / "train.parquet") == whole


@pytest.mark.parametrize("kind", ["minionerec", "openonerec"])
def test_train_prompts_are_windows_of_their_own(tmp_path: Path, kind: str) -> None:
    folder = write_minionerec(tmp_path / kind) if kind == "minionerec" else write_openonerec(tmp_path / kind)
    source = read_source(DataConfig(kind, folder))  # pyright: ignore[reportArgumentType]
    for row in range(len(source.train)):
        past = source.train.seen_item[source.train.seen_offset[row] : source.train.seen_offset[row + 1]].tolist()
        targets = [item for item in source.train.targets_NT[row].tolist() if item >= 0]
        assert source.dataset.sequence(row).tolist() == past + targets
    drawn = np.concatenate([Windows(source.dataset, 3, 1, seed).step(step) for seed in range(9) for step in range(1, 9)])
    whole = [source.dataset.sequence(row).tolist() for row in range(len(source.train))]
    expected = {tuple(s[first:end]) for s in whole for end in range(1, len(s) + 1) for first in range(max(0, end - 3), end)}
    assert {tuple(item for item in row if item >= 0) for row in drawn.tolist()} <= expected


def test_formats_of_users_in_time_agree(tmp_path: Path) -> None:
    (tmp_path / "a.inter").write_text(atomic_text())
    (tmp_path / "a.txt").write_text(sequence_text())
    (tmp_path / "a.csv").write_text(table_text())
    table_frame().write_parquet(tmp_path / "a.parquet")
    kinds = {"a.inter": "atomic", "a.txt": "sequences", "a.csv": "table", "a.parquet": "table"}
    sources = [load_source(DataConfig(recognise(tmp_path / name)[0], tmp_path / name, core=(1,))) for name in kinds]
    assert [source.format for source in sources] == list(kinds.values())
    assert [source.tied for source in sources] == [0.0, None, 0.0, 0.0]
    for source in sources[1:]:
        assert source.items == sources[0].items
        for split in ("train", "validation", "test"):
            for name in ("history_NH", "targets_NT", "user_N", "seen_item"):
                assert (getattr(source.split(split), name) == getattr(sources[0].split(split), name)).all()


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1: the file is empty"),
        (b"1 2 3\n4\n", "line 2, column item: user '4' has no item"),
        (b"1 2 3\n\n4 5\n", "line 2, column item: the line is empty"),
        (b"1 2 3\n2 3\n1 5\n", "line 3, column user: '1' is on line 1 too"),
        (b"1 2 3\n2 \xff 3\n", "line 2: not readable as UTF-8"),
        (b"1 2 3\n2 \0 3\n", "line 2: holds a NUL"),
    ],
)
def test_sequences_say_where_they_are_wrong(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    refused(lambda: read_sequences(tmp_path / "a.txt"), tmp_path / "a.txt", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the file is empty"),
        ("user,item,timestamp\n", "line 2: missing"),
        ("user,item,when\n1,2,3\n", r"line 1: no column of the timestamp by its name, and \['when'\] might be it"),
        ("user,item,timestamp,item\n1,2,3,4\n", "line 1: 'item' and 'item' may both be the column of the item"),
        ("user,item,timestamp\n1,2,3\n4,5\n", "line 3: column 'timestamp' is missing in"),
        ("user,item,timestamp\n1,2,3,4\n", "line 2: too many cells"),
        ("user,item,timestamp\n1,2,3\n,5,6\n", "line 3, column user: found ''; give every row an id"),
        ("user,item,timestamp\n1,2,nan\n", "line 2, column timestamp: found 'nan'; write finite"),
        ("user,item,timestamp\n1,2,3\n1,2,soon\n", "line 3, column timestamp: found 'soon'"),
        ('user,item,timestamp\n1,"2,3\n4,5,6\n', "line 3: not parted by commas"),
        ("user,item,timestamp\n1,2,3\n\n4,5,6\n", "line 3: the line is empty, and more follow"),
    ],
)
def test_csv_tables_say_where_they_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    refused(lambda: read_table(tmp_path / "a.csv"), tmp_path / "a.csv", said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("item"), "no column of the item by its name in"),
        (lambda f: f.clear(), "row 0: missing"),
        (lambda f: f.with_columns(item=pl.lit(1.5)), "column 'item' has type Float64"),
        (lambda f: f.with_columns(timestamp=pl.lit("soon")), "row 0, column timestamp: found 'soon'"),
        (lambda f: f.with_columns(timestamp=pl.lit([1])), "column 'timestamp' has type List"),
        (lambda f: f.with_columns(user=pl.when(pl.col("user") != "u3").then("user")), "row 15, column user: found None"),
        (lambda f: f.with_columns(timestamp=pl.lit(float("nan"))), "row 0, column timestamp: found nan; write finite"),
    ],
)
def test_parquet_tables_say_where_they_are_wrong(tmp_path: Path, change: Callable, said: str) -> None:
    path = tmp_path / "a.parquet"
    change(table_frame()).write_parquet(path)
    refused(lambda: read_table(path), path, said)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for content in (b"", b"user,item\n1,2\n", b"PAR1 and no more"):
        path.write_bytes(content)
        refused(lambda: read_table(path), path, "not a whole parquet file")
    path.write_bytes(b"PAR1PAR1")
    refused(lambda: read_table(path), path, "cannot be read .*is it damaged")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"0": ["<a_1>"], "1": ["<a_2>"', "not JSON .* is it cut off"),
        ("[]", "not an object of items"),
        ("{}", "not an object of items"),
        ('{"0": ["<a_1>", "<b_1>"], "1": ["<a_1>"]}', "item '1': found .* write 2 tokens"),
        ('{"0": ["<b_1>"]}', "item '0': found"),
        ('{"0": [1, 2]}', "item '0': found"),
        ('{"0": ["<a_1>"], "0": ["<a_2>"]}', "item '0': is there twice"),
    ],
)
def test_an_index_says_where_it_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.index.json"
    path.write_text(text)
    refused(lambda: read_index(path), path, said)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("history_item_id", "[]", "an empty history asks nothing"),
        ("history_item_id", "[0, 99, 2]", "the index has no such item"),
        ("history_item_id", "__import__('os')", "write a Python list"),
        ("history_item_id", "[0, 1.5, 2]", "write a Python list"),
        ("history_item_sid", "['<a_0><b_0><c_0>']", "1 values for 3 ids"),
        ("history_item_sid", "['<a_0><b_0><c_0>', '<a_9><b_9><c_9>', '<a_2><b_0><c_0>']", "item '1' has"),
        ("item_id", "", "the index has no such item"),
        ("item_sid", "<a_0><b_1>", "item '3' has"),
        ("item_sid", "", "item '3' has"),
        ("user_id", "", "give every row an id"),
        ("history_item_title", "['x', 'y', 'z']", "give an item one title"),
    ],
)
def test_minionerec_says_where_it_is_wrong(tmp_path: Path, column: str, value: str, said: str) -> None:
    (tmp_path / "i.index.json").write_text(index_text())
    rows, path = minionerec_rows("train"), tmp_path / "a.csv"
    rows[1][column] = value
    path.write_text(csv_text(rows))
    refused(lambda: read_minionerec(path, read_index(tmp_path / "i.index.json")), path, f"line 3, column {column}: .*{said}")


def test_minionerec_may_end_in_blank_lines_and_hold_none(tmp_path: Path) -> None:
    (tmp_path / "i.index.json").write_text(index_text())
    path, index = tmp_path / "a.csv", read_index(tmp_path / "i.index.json")
    path.write_text(csv_text(minionerec_rows("train")) + "\n\n")
    assert prompts_of(read_minionerec(path, index)) == [(history, [target]) for _, history, target in PROMPTS["train"]]
    path.write_text(path.read_text() + csv_text(minionerec_rows("train")).splitlines()[1] + "\n")
    refused(lambda: read_minionerec(path, index), path, "line 6: the line is empty, and more follow; drop it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "found null"),
        ("[{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "write a JSON list"),
        ("[]", "write a JSON list"),
        ("[1]", "give it a role"),
        (json.dumps(chat(["0"], ["1"])[:2]), "the last message is of 'user'"),
        (broken_chat(user="nothing"), "no SID in the messages before"),
        (broken_chat(answer="nothing"), "no SID in the answer"),
        (broken_chat(answer="<think><|sid_begin|><s_a_1><s_b_1><s_c_1><|sid_end|></think>"), "no SID in the answer"),
        (broken_chat(answer="<|sid_begin|><s_a_1><s_b_1><s_c_1>"), "outside begin and end"),
        (broken_chat(answer="<s_a_1><s_b_1><s_c_1>"), "outside begin and end"),
        (broken_chat(answer="<|sid_begin|><s_a_1><s_b_1><|sid_end|>"), "write 3 levels as in"),
        (broken_chat(answer="<|sid_begin|><s_a_1><s_c_1><s_b_1><|sid_end|>"), "found the SID"),
        (broken_chat(user=7), "write a string or a list of parts"),
        (broken_chat(user=[{"type": "image"}]), "found the part"),
    ],
    ids=str,
)
def test_openonerec_says_where_it_is_wrong(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"messages": [json.dumps(chat(["0"], ["1"])), text]}).write_parquet(path)
    refused(lambda: read_openonerec(path), path, f"row 1, column messages: .*{said}")


def test_files_and_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = write_minionerec(tmp_path / "m")
    (folder / "toys.csv").write_text("x")
    refused(lambda: read_source(DataConfig("minionerec", folder)), folder / "toys.csv", "tells no split")
    (folder / "toys.csv").rename(folder / "train" / "more.csv")
    refused(lambda: read_source(DataConfig("minionerec", folder)), folder, "2 files of the train split")
    (folder / "train" / "more.csv").rename(folder / "other.index.json")
    refused(lambda: read_source(DataConfig("minionerec", folder)), folder, "there must be one index")
    alone = write_openonerec(tmp_path / "o") / "test.parquet"
    assert len(read_source(DataConfig("openonerec", alone)).test) == 2
    refused(lambda: load_source(DataConfig("openonerec", alone)), alone, "no train prompts")
    (tmp_path / "empty").mkdir()
    refused(lambda: read_source(DataConfig("openonerec", tmp_path / "empty")), tmp_path / "empty", r"no \*\.parquet file")
    refused(lambda: read_source(DataConfig("table", tmp_path / "lost.csv")), tmp_path / "lost.csv", "no such file")


def test_recognise_knows_each_format_and_says_when_it_does_not(tmp_path: Path) -> None:
    folder, chats = write_minionerec(tmp_path / "m"), write_openonerec(tmp_path / "o")
    assert recognise(folder)[0] == recognise(folder / "test" / "toys.csv")[0] == "minionerec"
    assert recognise(chats)[0] == recognise(chats / "train.parquet")[0] == "openonerec"
    (tmp_path / "x.txt").write_text("word\nword\n")
    refused(lambda: recognise(tmp_path / "x.txt"), tmp_path / "x.txt", "begins no known format")
    refused(lambda: recognise(tmp_path / "lost"), tmp_path / "lost", "cannot be read")
    (tmp_path / "empty").mkdir()
    refused(lambda: recognise(tmp_path / "empty"), tmp_path / "empty", "no .*index.json and no .*parquet")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": Path("x")}, "path: 'ml-100k' is fetched"),
        ({"format": "table"}, "path: format 'table' needs"),
        ({"format": "excel", "path": Path("x")}, "format: 'excel' must be one of"),
        ({"core": (5, 0)}, r"core\.1: 0 must be at least 1"),
        ({"core": (1, 2, 3)}, r"core: \(1, 2, 3\) must hold 2 at most"),
        ({"max_history": 0}, "max_history: 0 must be at least 1"),
    ],
)
def test_bad_settings_name_the_key(keys: dict, said: str) -> None:
    with pytest.raises(DataError, match=f"DataConfig.{said}"):
        DataConfig(**keys)
    with pytest.raises(DataError, match="must name different columns"):
        TableColumns(user="x", item="x")


def test_bad_rows_are_left_out_on_request_and_counted(tmp_path: Path) -> None:
    write_openonerec(tmp_path)
    good = pl.read_parquet(tmp_path / "train.parquet")["messages"].to_list()
    late = broken_chat(user=f"{open_sid('0')}<|sid_begin|><s_a_9><s_b_9><s_c_9><|sid_end|>", answer="nothing")
    rows = [None, good[0], late, "[{", good[1], broken_chat(answer="<s_a_1>"), good[2]]
    pl.DataFrame({"messages": rows}).write_parquet(tmp_path / "train.parquet")
    refused(lambda: read_source(DataConfig("openonerec", tmp_path)), tmp_path / "train.parquet", "row 0, column messages")
    source = load_source(DataConfig("openonerec", tmp_path, skip_bad=True))
    assert source.items == sorted(map(item_name, SIDS))  # what bad rows name is not in the catalog
    assert len(source.train) == 3
    (note,) = source.notes
    assert note.startswith("skipped 4 of 10 rows that cannot be read, the first: ")
    assert [f"row {row}, column" in note for row in (0, 2, 3, 5)] == [True, True, True, False]
    pl.DataFrame({"messages": ["[{", None]}).write_parquet(tmp_path / "bad.train.parquet")
    alone = DataConfig("openonerec", tmp_path / "bad.train.parquet", skip_bad=True)
    refused(lambda: read_source(alone), tmp_path / "bad.train.parquet", "no row can be read; skipped 2 of 2 rows")
    with pytest.raises(DataError, match=r"DataConfig\.skip_bad: true has no effect on 'table'"):
        DataConfig("table", tmp_path, skip_bad=True)
