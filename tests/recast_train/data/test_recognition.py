"""What a file is, told by its content: what is read right without a word from the user, and what is refused with the fix."""

import gzip
import json
import lzma
from pathlib import Path

import polars as pl
import pytest
from data_files import LOG, SIDS, TITLES, csv_text, index_text, minionerec_rows, write_minionerec

from recast_train.data import (
    DataConfig,
    DataError,
    TableColumns,
    read_sequences,
    read_source,
    read_table,
    read_titles,
    recognise,
)
from recast_train.data.readers.recbole import read_atomic

PAIRS = [(user, item) for user, item, _ in LOG]
NUMBERED = [(user[1:], item[1:], time + 880_000_000) for user, item, time in LOG]


def write(path: Path, header: str | None, rows: list[tuple], separator: str) -> Path:
    lines = [separator.join(map(str, row)) for row in rows]
    path.write_text("".join(f"{line}\n" for line in ([header] if header else []) + lines))
    return path


def read(path: Path, columns: TableColumns | None = None) -> tuple[str, list[tuple]]:
    kind = recognise(path, columns)[0]
    reader = {"atomic": read_atomic, "table": read_table}[kind]
    return kind, reader(path, columns).rows()


HEADERS = {
    "a.inter": ("user_id:token\titem_id:token\ttimestamp:float", "\t", "atomic"),
    "session.inter": ("session_id:token\titem_id:token\ttimestamp:float", "\t", "atomic"),
    "product.inter": ("user_id:token\tproduct_id:token\ttimestamp:float", "\t", "atomic"),
    "blanks.inter": ("user_id:token item_id:token timestamp:float", " ", "atomic"),
    "commas.inter": ("user_id:token,item_id:token,timestamp:float", ",", "atomic"),
    "quoted.inter": ('"user_id:token"\t"item_id:token"\t"timestamp:float"', "\t", "atomic"),
    "untyped.inter": ("user_id\titem_id\ttimestamp", "\t", "table"),
    "quoted-untyped.inter": ('"user_id"\t"item_id"\t"timestamp"', "\t", "table"),
    "a.tsv": ("user\titem\ttime", "\t", "table"),
    "blanks.txt": ("userId movieId timestamp", " ", "table"),
    "semicolons.csv": ("UserID;ISBN;ts".replace("ISBN", "ItemID"), ";", "table"),
    "bars.csv": ("reviewerID|asin|unixReviewTime", "|", "table"),
    "colons.dat": ("uid::iid::timestamp", "::", "table"),
    "sessions.csv": ("SessionId,ItemId,Time", ",", "table"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_names_the_columns_and_is_no_user(tmp_path: Path, name: str) -> None:
    header, separator, kind = HEADERS[name]
    assert read(write(tmp_path / name, header, LOG, separator)) == (kind, LOG)
    (tmp_path / name).write_text((tmp_path / name).read_text() + "\n  \n\n")  # blank lines at the end
    assert read(tmp_path / name) == (kind, LOG)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path / name) == (kind, LOG)


@pytest.mark.parametrize(
    "header", ["user_id:token\titem_id:token", "user_id:token\titem_id:token\trating:float", "user\titem\tlabel"]
)
def test_implicit_feedback_needs_neither_ratings_nor_times(tmp_path: Path, header: str) -> None:
    rows = [(*pair, 3)[: header.count("\t") + 1] for pair in PAIRS]
    kind, found = read(write(tmp_path / "x.inter", header, rows, "\t"))
    assert found == PAIRS  # in the order of the file
    source = read_source(DataConfig("atomic" if kind == "atomic" else "table", tmp_path / "x.inter", core=(1,)))
    assert source.tied is None


@pytest.mark.parametrize("name", ["label", "label:float"])
def test_a_label_of_0_is_no_interaction(tmp_path: Path, name: str) -> None:
    kind = ":token" if ":" in name else ""
    typed = f"user_id{kind}	item_id{kind}	{name}"
    rows = [(*pair, place % 2) for place, pair in enumerate(PAIRS)]
    with pytest.raises(DataError, match=r"column label: 15 of 30 rows are 0, what users did not take; leave them out"):
        read(write(tmp_path / "x.inter", typed, rows, "\t"))
    assert read(write(tmp_path / "x.inter", typed, [(*pair, 1) for pair in PAIRS], "\t"))[1] == PAIRS
    pl.DataFrame(rows, schema=["user", "item", "label"], orient="row").write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="15 of 30 rows are 0"):
        read(tmp_path / "x.parquet")


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("true", "false"), ("1.0", "0.0"), ("1", "-1")])
def test_labels_of_two_words_are_such_as_well(tmp_path: Path, yes: str, no: str) -> None:
    rows = [(*pair, no if place % 3 else yes) for place, pair in enumerate(PAIRS)]
    with pytest.raises(DataError, match=rf"column label: 20 of 30 rows are {no}, what users did not take; leave them out"):
        read_table(write(tmp_path / "x.csv", "user,item,label", rows, ","))
    assert read_table(write(tmp_path / "x.csv", "user,item,label", [(*pair, yes) for pair in PAIRS], ",")).rows() == PAIRS


@pytest.mark.parametrize("odd", ["nan", "NULL", "None", "<NA>"])
def test_a_word_for_a_missing_id_is_none(tmp_path: Path, odd: str) -> None:
    for row, column in (((odd, "x"), "user"), (("a", odd), "item")):
        with pytest.raises(DataError, match=rf"line 32, column {column}: found '{odd}'; give every row an id, or leave it out"):
            read_table(write(tmp_path / "x.csv", "user,item", [*PAIRS, row], ","))
    with pytest.raises(DataError, match=rf"line 1: found '{odd}', which is no id"):
        read_sequences(write(tmp_path / "x.txt", f"u1 i1 {odd} i2", [], " "))


@pytest.mark.parametrize(("first", "second"), [("u0", "u0 "), (" 7", "7"), ("7", "7.0"), ("-3.00", "-3")])
def test_an_id_is_written_in_one_way(tmp_path: Path, first: str, second: str) -> None:
    rows = [(first, "x"), (second, "y"), ("u", "z")]
    with pytest.raises(DataError, match=f"column user: found '{first}' and '{second}'; write an id in one way"):
        read_table(write(tmp_path / "x.csv", "user,item", rows, ","))
    pl.DataFrame(rows, schema=["item", "user"], orient="row").write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=f"column item: found '{first}' and '{second}'"):
        read_table(tmp_path / "x.parquet")
    one = [("7.0", "x"), ("8.0", "y"), ("v1.0", "x"), ("v1", "y"), (" a", "z")]
    assert read_table(write(tmp_path / "x.csv", "user,item", one, ",")).rows() == one


def test_times_of_two_units_are_refused(tmp_path: Path) -> None:
    moments = [1_600_000_000, 1_600_000_060, 1_600_000_120_000]
    for times in (moments, [float(time) for time in moments]):
        frame = pl.DataFrame({"user": ["a", "b", "c"], "item": ["x", "y", "z"], "timestamp": times})
        frame.write_parquet(tmp_path / "x.parquet")
        frame.write_csv(tmp_path / "x.csv")
        for name, place in (("x.parquet", "row 2"), ("x.csv", "line 4")):
            with pytest.raises(DataError, match=f"{place}, column timestamp: found .*one kind and unit alone"):
                read_table(tmp_path / name)
    assert read_table(write(tmp_path / "x.csv", "user,item,time", [("a", "x", 5), ("b", "y", 10**12)], ",")).height == 2


def test_content_tells_parquet_and_packed_text_whatever_the_name(tmp_path: Path) -> None:
    frame = pl.DataFrame(PAIRS, schema=["user", "item"], orient="row")
    frame.write_parquet(tmp_path / "x.csv")
    assert read(tmp_path / "x.csv") == ("table", PAIRS)
    pl.DataFrame({"item": ["x"], "title": ["X"]}).write_parquet(tmp_path / "titles.csv")
    assert read_titles(tmp_path / "titles.csv") == {"x": "X"}
    packed = {"gzip": gzip.compress(b"user,item"), "xz": lzma.compress(b"user,item"), "a zip": b"PK\x03\x04more"}
    for name, content in packed.items():
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(DataError, match=f"line 1: .*{name}.*; unpack it"):
            read_table(tmp_path / "x.csv")


ISO = {
    "2024-01-05": 1_704_412_800_000_000,
    "2024-01-05T10:00:00": 1_704_448_800_000_000,
    "2024-01-05 10:00:00.25": 1_704_448_800_250_000,
    "2024-01-05T10:00:00.000Z": 1_704_448_800_000_000,
    "2024-01-05T12:00:00+02:00": 1_704_448_800_000_000,
}


@pytest.mark.parametrize("text", ISO)
def test_iso_times_are_read(tmp_path: Path, text: str) -> None:
    rows = [("a", "x", text), ("b", "y", "1970-01-01")]
    assert read_table(write(tmp_path / "x.csv", "user,item,date", rows, ",")).rows() == [("a", "x", ISO[text]), ("b", "y", 0)]
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_parquet(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").rows() == [("a", "x", ISO[text]), ("b", "y", 0)]


@pytest.mark.parametrize("odd", ["5", "01/05/2024", "soon", "", "2024-13-01"])
def test_times_of_two_kinds_are_refused(tmp_path: Path, odd: str) -> None:
    path = write(tmp_path / "x.csv", "user,item,date", [("a", "x", "2024-01-05"), ("b", "y", odd)], ",")
    with pytest.raises(DataError, match=rf"line 3, column date: found '{odd}'; write finite numbers or ISO 8601"):
        read_table(path)


TABLES = [("\t", "tabs"), (" ", "blanks"), ("::", "'::'"), (",", "commas"), (";", "semicolons")]


@pytest.mark.parametrize(("separator", "shown"), TABLES)
@pytest.mark.parametrize("rated", [True, False])
def test_a_table_without_a_header_is_never_sequences(tmp_path: Path, separator: str, shown: str, rated: bool) -> None:
    """Two readings are possible, user or item first: the user says which."""
    rows = [(user, item, 5, time) if rated else (user, item, time) for user, item, time in NUMBERED]
    path, last = write(tmp_path / "u.data", None, rows, separator), 4 if rated else 3
    with pytest.raises(DataError, match=rf"looks like a table without a header \({last} columns parted by {shown}") as caught:
        recognise(path)
    assert f"--columns.user 1 --columns.item 2 --columns.timestamp {last}" in str(caught.value)
    assert read(path, TableColumns("1", "2", str(last))) == ("table", NUMBERED)
    swapped = read(path, TableColumns("2", "1", str(last)))[1]
    assert swapped == [(item, user, time) for user, item, time in NUMBERED]
    with pytest.raises(DataError, match=rf"no column '{last + 1}'; without a header they have places from 1 to {last}"):
        read(path, TableColumns("1", "2", str(last + 1)))


def test_pairs_without_a_header_are_a_table_in_the_order_of_time(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", None, [row[:2] for row in NUMBERED], " ")
    with pytest.raises(DataError, match=r"2 columns parted by blanks, the first with repeats.*--columns\.timestamp ''"):
        recognise(path)
    assert read(path, TableColumns("1", "2", ""))[1] == [row[:2] for row in NUMBERED]


@pytest.mark.parametrize("header", ["user_id\titem_id\ttimestamp", "who\twhat\twhen"])
def test_places_do_not_make_a_header_a_user(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "x.tsv", header, NUMBERED, "\t")
    assert read_table(path, TableColumns("1", "2", "3")).rows() == NUMBERED


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("who\twhat\twhen", r"\['who', 'what', 'when'\] looks like a header without the known name"),
        ("user\twhat\twhen", "looks like a header without"),
        ("user_id\tsession_id\titem_id", None),
        ("uid\tsession_id\titem_id", "'uid' and 'session_id' may both be the column of the user; say which by columns.user"),
        ("user\tasin\tparent_asin", "'asin' and 'parent_asin' may both be the column of the item"),
        ("user\titem\twhen", r"no column of the timestamp by its name, and \['when'\] might be it"),
        ("user\ttime\tdate", "looks like a header without"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(tmp_path: Path, header: str, said: str | None) -> None:
    path = write(tmp_path / "x.tsv", header, NUMBERED, "\t")
    with pytest.raises(DataError, match=said or "might be it") as caught:
        read(path)
    assert "columns." in str(caught.value)
    assert "\n" not in str(caught.value)
    names = header.split("\t")
    assert read(path, TableColumns(*names))[1] == NUMBERED


def test_sequences_are_recognised_by_their_users(tmp_path: Path) -> None:
    for text in ("u1 i1 i2\nu2 i3\n", "1\t5 6 7\n2\t5\n", "1 5 6\n2 5 7\n3 8 9\n", "A1B:2 x/1 x/2 x/3\nA1C:2 x/2\n"):
        (tmp_path / "x.txt").write_text(text)
        assert recognise(tmp_path / "x.txt")[0] == "sequences"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id item_id\n1 5\n2 6\n", None),
        ("1 5 880000000\n2 6 880000001\n3 7 880000002\n", r"the last of times\) or sequences of users; .*--format sequences"),
        ("1 5 2024-01-05\n2 6 2024-01-06\n", "or sequences of users"),
        ("1 5 6\n1 7\n2 8\n", "lines of several lengths, and '1' begins two of them"),
        ("The quick brown fox\njumps over it.\n", "begins no known format"),
        ("users take items\nin this order\n", "begins no known format"),
        ('{"user": 1, "item": 2}\n{"user": 1, "item": 3}\n', "looks like JSON"),
        ("[1, 2]\n", "looks like JSON"),
        ("word\n", "begins no known format"),
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
    ],
)
def test_text_that_is_no_sequences_is_not_taken_for_them(tmp_path: Path, text: str, said: str | None) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    if said is None:
        assert recognise(path)[0] == "table"
        with pytest.raises(DataError, match=r"line 1: .* is a header; drop it, or read the file as a table"):
            read_source(DataConfig("sequences", path, core=(1,)))
        return
    with pytest.raises(DataError, match=said) as caught:
        recognise(path)
    assert str(path) in str(caught.value)


def test_recboles_sequential_files_are_the_sequences_of_their_longest_rows(tmp_path: Path) -> None:
    header = "session_id:token\titem_id_list:token_seq\titem_id:token"
    rows = [("s1", "a", "b"), ("s1", "a b", "c"), ("s2", "b", "a"), ("s1", "a b c", "a")]
    path = write(tmp_path / "x.train.inter", header, rows, "\t")
    assert recognise(path)[0] == "atomic"
    assert read_atomic(path).rows() == [("s1", "a"), ("s1", "b"), ("s1", "c"), ("s1", "a"), ("s2", "b"), ("s2", "a")]
    with pytest.raises(DataError, match=r"line 6: the items of 's1' do not begin its longest row; lists that were cut"):
        read_atomic(write(path, header, [*rows, ("s1", "b c", "a")], "\t"))
    with pytest.raises(DataError, match="without a user or session"):
        read_atomic(write(path, "x:token\titem_id_list:token_seq\titem_id:token", rows, "\t"))


# Titles


def test_titles_come_from_a_table_of_their_own(tmp_path: Path) -> None:
    titles = {f"i{item}": f'The "{item}", or so' for item in range(12)}
    inter = write(tmp_path / "a.inter", "user_id:token\titem_id:token\ttimestamp:float", LOG, "\t")
    write(
        tmp_path / "a.item",
        "item_id:token\tmovie_title:token_seq\tclass:token_seq",
        [(*row, "x y") for row in titles.items()],
        "\t",
    )
    pl.DataFrame({"item": list(titles), "title": list(titles.values())}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"asin": list(titles), "title": list(titles.values())}).write_csv(tmp_path / "a.csv")
    (tmp_path / "a.item.json").write_text(json.dumps({item: {"title": title, "more": [1]} for item, title in titles.items()}))
    (tmp_path / "b.json").write_text(json.dumps(titles))
    for name in ("a.item", "a.parquet", "a.csv", "a.item.json", "b.json"):
        assert read_titles(tmp_path / name) == titles
        source = read_source(DataConfig("atomic", inter, titles=tmp_path / name, core=(1,)))
        assert source.titles == [titles[item] for item in source.items]
    named = write(tmp_path / "c.tsv", "asin\tparent_asin\twords", [(item, "x", title) for item, title in titles.items()], "\t")
    assert read_titles(named, TableColumns(item="asin", title="words")) == titles
    with pytest.raises(DataError, match=r"DataConfig\.titles: .* has no effect on 'ml-100k'"):
        DataConfig(titles=named)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "item,title\n1,x\n1,y\n", "line 3: found the item '1'; give every row one, and an item one row"),
        ("a.csv", "item,title\n1,x\n2,\n", "line 3: item '2' has the title ''"),
        ("a.csv", "item,words\n1,x\n", "no column of the title by its name"),
        ("a.json", '{"1": {"name": "x"}}', "item '1': item '1' has the title 'None'"),
        ("a.json", '{"1": "x", "1": "y"}', "found the item '1'"),
        ("a.json", "[1]", "not an object of items"),
        ("a.json", '{"1"', "not JSON"),
    ],
)
def test_tables_of_titles_say_where_they_are_wrong(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_titles(tmp_path / name)


def test_items_that_no_prompt_titles_are_titled_by_a_table(tmp_path: Path) -> None:
    folder = write_minionerec(tmp_path / "m")
    (folder / "toys.index.json").write_text(index_text(SIDS | {"99": (0, 0, 1)}))
    source = read_source(DataConfig("minionerec", folder))
    assert source.titles == []
    assert source.notes == ("no titles are used: 1 of 9 items have none, '99' the first",)
    (folder / "toys.item.json").write_text(json.dumps({"99": {"title": "Yo-yo", "description": "round"}}))
    source = read_source(DataConfig("minionerec", folder, titles=folder / "toys.item.json"))
    assert source.titles == [(TITLES | {"99": "Yo-yo"})[item] for item in source.items]
    assert source.notes == ()


# MiniOneRec's release: two data sets in the same folders


def test_one_of_two_data_sets_is_named_by_its_index(tmp_path: Path) -> None:
    write_minionerec(tmp_path)
    (tmp_path / "index").mkdir()
    (tmp_path / "toys.index.json").rename(tmp_path / "index" / "toys.index.json")
    other = {item: (codes[2], *codes[:2]) for item, codes in SIDS.items()}
    (tmp_path / "index" / "Office.index.json").write_text(index_text(other))
    for split in ("train", "valid", "test"):
        (tmp_path / split / "Office_5_2016.csv").write_text(csv_text(minionerec_rows(split)).replace("<a_", "<x_"))
    with pytest.raises(DataError, match=r"2 files .*index\.json belong to it .* give the path of one of them"):
        read_source(DataConfig("minionerec", tmp_path))
    index = tmp_path / "index" / "toys.index.json"
    assert recognise(index)[0] == "minionerec"
    source = read_source(DataConfig("minionerec", index))
    assert (len(source.train), len(source.validation), len(source.test)) == (4, 1, 2)
    assert source.titles == [TITLES[item] for item in source.items]
    alone = read_source(DataConfig("minionerec", tmp_path / "test" / "toys.csv"))
    assert (len(alone.test), alone.codes_IL.tolist()) == (2, source.codes_IL.tolist())  # pyright: ignore[reportOptionalMemberAccess]
