"""Seeded damage to small files of every format: a DataError that names the file, or a result that the damage justifies.

What justifies a result, decided without the readers: a cut text file that is a whole file again reads as a plain split of
what is left; a MiniOneRec file cut at the end of a row has the rows before it; a flipped byte that a compressed file does not
need changes nothing; a flipped byte in a parquet file reads as polars alone reads it. All other damage must be an error.
"""

import gzip
import io
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from data_files import (
    PROMPTS,
    SIDS,
    atomic_text,
    chat_frame,
    csv_text,
    index_text,
    minionerec_rows,
    sequence_text,
    table_frame,
    table_text,
)
from plain_readers import (
    ERROR,
    chats_of,
    polars_chats,
    polars_table,
    prompts_of,
    split_cells,
    split_sequences,
)

from recast_sim.runs import derive_seed
from recast_train.data import (
    DataError,
    read_atomic,
    read_index,
    read_minionerec,
    read_openonerec,
    read_sequences,
    read_table,
    read_titles,
)

ITEMS = "item_id:token\tmovie_title:token_seq\n" + "".join(f"i{item}\tToy {item}\n" for item in range(12))


@dataclass(frozen=True)
class Damage:
    """A damaged file's content, and the result that justifies not refusing it (ERROR: none)."""

    content: bytes
    justified: Any = ERROR


Mutation = Callable[[np.random.Generator], Damage]


# Kinds of damage


def cut(content: bytes, justify: Callable[[str], Any] | None = None) -> Mutation:
    def damage(rng: np.random.Generator) -> Damage:
        left = content[: rng.integers(len(content) - 1)]
        return Damage(left, ERROR if justify is None else justify(left.decode()))

    return damage


def flip(content: bytes, justify: Callable[[bytes], Any] = lambda _: ERROR) -> Mutation:
    """The high bit of one byte: of ASCII text never UTF-8."""

    def damage(rng: np.random.Generator) -> Damage:
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 0x80
        return Damage(bytes(changed), justify(bytes(changed)))

    return damage


def cells(text: str, mark: str, first: int, values: list[str], columns: list[int]) -> Mutation:
    """One cell of a row from line `first` on becomes one of the values."""

    def damage(rng: np.random.Generator) -> Damage:
        lines = [line.split(mark) for line in text.splitlines()]
        lines[rng.integers(first, len(lines))][rng.choice(columns)] = str(rng.choice(values))
        return Damage("".join(mark.join(line) + "\n" for line in lines).encode())

    return damage


def headers(text: str, mark: str, columns: list[int]) -> Mutation:
    """One column is dropped, renamed, or there twice."""

    def damage(rng: np.random.Generator) -> Damage:
        lines, column = [line.split(mark) for line in text.splitlines()], int(rng.choice(columns))
        way = rng.integers(3)
        if way == 0:
            lines = [line[:column] + line[column + 1 :] for line in lines]
        elif way == 1:
            lines[0][column] += "s"
        else:
            lines[rng.integers(1, len(lines))].append("more")
        return Damage("".join(mark.join(line) + "\n" for line in lines).encode())

    return damage


def frames(frame: pl.DataFrame, *changes: Callable[[pl.DataFrame, int], pl.DataFrame]) -> Mutation:
    def damage(rng: np.random.Generator) -> Damage:
        change, row = changes[rng.integers(len(changes))], int(rng.integers(frame.height))
        return Damage(parquet(change(frame, row)))

    return damage


def parquet(frame: pl.DataFrame, compression: Any = "zstd") -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file, compression=compression)
    return file.getvalue()


def at(row: int, column: str, value: Any) -> pl.Expr:
    return pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


def twice(lines: list[str]) -> Mutation:
    """A line after the header is there a second time."""

    def damage(rng: np.random.Generator) -> Damage:
        return Damage("".join([*lines, lines[rng.integers(1, len(lines))]]).encode())

    return damage


def mini_rows(rng: np.random.Generator) -> Damage:
    rows = minionerec_rows("train")
    row, column = rows[rng.integers(len(rows))], str(rng.choice(list(rows[0])))
    values = ["", "[]", "[1, ", "{1: 2}", "nan", "[None]", "[99]", "<a_9><b_9><c_9>"]
    if column in ("user_id", "item_title"):  # any text may be a user or a title: blank the first, contradict the second
        row[column] = ""
        rows.append(dict(minionerec_rows("train")[1]))
        rows.append(rows[0] | {"item_title": "another"} if column == "item_title" else rows[0])
    else:
        row[column] = str(rng.choice(values[:-2] if column == "history_item_title" else values))  # [99] may be a title
    return Damage(csv_text(rows).encode())


def mini_columns(rng: np.random.Generator) -> Damage:
    name, rows = str(rng.choice(list(minionerec_rows("train")[0]))), minionerec_rows("train")
    dropped = [{key: value for key, value in row.items() if key != name} for row in rows]
    renamed = [{key + "s" * (key == name): value for key, value in row.items()} for row in rows]
    return Damage(csv_text(dropped if rng.integers(2) else renamed).encode())


def mini_cut(rng: np.random.Generator) -> Damage:
    whole = csv_text(minionerec_rows("train"))
    left = whole[: rng.integers(len(whole) - 1)]
    ends = [len(csv_text(minionerec_rows("train")[:n])) for n in range(1, len(PROMPTS["train"]) + 1)]
    kept = next((n for n, end in enumerate(ends, 1) if len(left) in (end - 1, end)), None)
    return Damage(left.encode(), ERROR if kept is None else [(h, [t]) for _, h, t in PROMPTS["train"][:kept]])


def index_items(rng: np.random.Generator) -> Damage:
    pairs: list[tuple[str, Any]] = list(json.loads(index_text()).items())
    place, other = rng.choice(len(pairs), 2, replace=False)
    item, tokens = pairs[place]
    values = [
        None,
        3,
        "<a_1>",
        [],
        tokens[:2],
        [*tokens, "<d_1>"],
        [1, 2, 3],
        tokens[::-1],
        [float("nan")] * 3,
    ]
    way = rng.integers(len(values) + 1)
    pairs[place] = (pairs[other][0], ["<a_50>", *tokens[1:]]) if way == len(values) else (item, values[way])
    return Damage(("{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}").encode())


def messages(frame: pl.DataFrame, row: int) -> list[Any]:
    return json.loads(frame["messages"][row])


def blank_part(frame: pl.DataFrame, row: int) -> pl.DataFrame:
    chats = messages(frame, row)
    chats[1 + row % 2]["content"] = ""
    return frame.with_columns(at(row, "messages", json.dumps(chats)))


def torn_sid(frame: pl.DataFrame, row: int) -> pl.DataFrame:
    return frame.with_columns(at(row, "messages", frame["messages"][row].replace("<s_b_", "<s_x_")))


def no_answer(frame: pl.DataFrame, row: int) -> pl.DataFrame:
    return frame.with_columns(at(row, "messages", json.dumps(messages(frame, row)[:-1])))


def half_json(frame: pl.DataFrame, row: int) -> pl.DataFrame:
    return frame.with_columns(at(row, "messages", frame["messages"][row][: 20 + row]))


def atomic_cells(text: str) -> Any:
    """Without the ratings, which are not read; a file cut in the header may lose its ratings or times."""
    rows = split_cells(text, "\t")
    return ERROR if rows is ERROR else [(user, item, time) for user, item, _, time in rows]


SEQUENCES, ATOMIC, TABLE, INDEX = sequence_text(), atomic_text(), table_text(), index_text()
PARQUET, CHATS_FILE = parquet(table_frame(), "uncompressed"), parquet(chat_frame("train"), "uncompressed")
NUMBERS = ["nan", "NaN", "inf", "soon", ""]


FRAME, CHAT = table_frame(), chat_frame("train")
SEQUENCE_ROWS = split_sequences(SEQUENCES)
SEEDS = 9


def index_path(path: Path) -> Path:
    (path.parent / "toys.index.json").write_text(INDEX)
    return path.parent / "toys.index.json"


def packed(pack: Callable[[bytes], bytes]) -> dict[str, Mutation]:
    """Of a packed sequence file: a cut is an error; a flipped byte is one too, or lies where nothing is read."""
    content = pack(SEQUENCES.encode())
    return {"cut": cut(content), "flip": flip(content, lambda _: SEQUENCE_ROWS)}


CASES: dict[str, tuple[Callable[[Path], Any], dict[str, Mutation]]] = {
    "a.txt": (
        lambda path: read_sequences(path).rows(),
        {
            "cut": cut(SEQUENCES.encode(), split_sequences),
            "flip": flip(SEQUENCES.encode()),
            "twice": twice(["", *SEQUENCES.splitlines(keepends=True)]),
            "blank": lambda rng: Damage(re.sub(f"u{rng.integers(6)}.*", str(rng.choice(["", "u9"])), SEQUENCES).encode()),
        },
    ),
    "a.txt.xz": (lambda path: read_sequences(path).rows(), packed(lzma.compress)),
    "a.txt.gz": (lambda path: read_sequences(path).rows(), packed(gzip.compress)),
    "a.inter": (
        lambda path: read_atomic(path).rows(),
        {
            "cut": cut(ATOMIC.encode(), lambda left: atomic_cells(left)),
            "flip": flip(ATOMIC.encode()),
            "headers": headers(ATOMIC, "\t", [0, 1]),
            "numbers": cells(ATOMIC, "\t", 1, NUMBERS, [3]),
            "blank": cells(ATOMIC, "\t", 1, [""], [0, 1]),
        },
    ),
    "a.item": (read_titles, {"twice": twice(ITEMS.splitlines(keepends=True)), "headers": headers(ITEMS, "\t", [0, 1])}),
    "a.csv": (
        lambda path: read_table(path).rows(),
        {
            "cut": cut(TABLE.encode(), lambda left: split_cells(left, ",")),
            "flip": flip(TABLE.encode()),
            "headers": headers(TABLE, ",", [0, 1]),
            "numbers": cells(TABLE, ",", 1, NUMBERS, [2]),
            "blank": cells(TABLE, ",", 1, ["", '"'], [0, 1]),
        },
    ),
    "a.parquet": (
        lambda path: read_table(path).rows(),
        {
            "cut": cut(PARQUET),
            "flip": flip(PARQUET, polars_table),
            "columns": frames(
                FRAME,
                lambda frame, row: frame.drop(frame.columns[row % 2]),
                lambda frame, row: frame.rename({frame.columns[row % 3]: "other"}),
                lambda frame, row: frame.with_columns(pl.lit([1]).alias(frame.columns[row % 3])),
                lambda frame, row: frame.with_columns(timestamp=pl.lit("soon")),
            ),
            "cells": frames(
                FRAME,
                lambda frame, row: frame.with_columns(at(row, "timestamp", float("nan"))),
                lambda frame, row: frame.with_columns(at(row, "timestamp", None)),
                lambda frame, row: frame.with_columns(at(row, "user", "")),
                lambda frame, row: frame.with_columns(at(row, "item", None)),
            ),
        },
    ),
    "toys.index.json": (
        read_index,
        {"cut": cut(INDEX.encode()), "flip": flip(INDEX.encode()), "items": index_items},
    ),
    "train.csv": (
        lambda path: prompts_of(read_minionerec(path, read_index(index_path(path)))),
        {
            "cut": mini_cut,
            "flip": flip(csv_text(minionerec_rows("train")).encode()),
            "rows": mini_rows,
            "columns": mini_columns,
        },
    ),
    "train.parquet": (
        lambda path: chats_of(read_openonerec(path)),
        {
            "cut": cut(CHATS_FILE),
            "flip": flip(CHATS_FILE, polars_chats),
            "columns": frames(
                CHAT,
                lambda frame, row: frame.drop("messages"),
                lambda frame, row: frame.rename({"messages": "message"}),
                lambda frame, row: frame.with_columns(messages=pl.lit(row)),
                lambda frame, row: frame.clear(),
            ),
            "cells": frames(
                CHAT,
                lambda frame, row: frame.with_columns(at(row, "messages", None)),
                blank_part,
                torn_sid,
                no_answer,
                half_json,
            ),
        },
    ),
}


def outcome(folder: Path, name: str, read: Callable[[Path], Any], damage: Damage) -> str:
    """ "error" or "justified"; any other exception passes through."""
    path = folder / name
    path.write_bytes(damage.content)
    try:
        found = read(path)
    except DataError as error:
        return "error" if str(path) in str(error) else f"an error that does not name the file: {error}"
    assert damage.justified is not ERROR, f"read without an error: {found}"
    assert found == damage.justified
    return "justified"


def test_damage_is_an_error_or_justified(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for name, (read, mutations) in CASES.items():
        for kind, mutate in mutations.items():
            for seed in range(SEEDS):
                found = outcome(tmp_path, name, read, mutate(np.random.default_rng(derive_seed(seed, name, kind))))
                counts[found] += 1
                counts[f"{name} {kind} {found}"] += 1
    total = sum(count for name, count in counts.items() if name in ("error", "justified"))
    assert total == SEEDS * sum(len(mutations) for _, mutations in CASES.values()) >= 300
    assert counts["error"] >= 0.8 * total, counts


def test_undamaged_files_are_read(tmp_path: Path) -> None:
    """The bases of the damage are good files: what is refused above is refused for its damage."""
    bases = {
        "a.txt": (SEQUENCES.encode(), SEQUENCE_ROWS),
        "a.txt.xz": (lzma.compress(SEQUENCES.encode()), SEQUENCE_ROWS),
        "a.txt.gz": (gzip.compress(SEQUENCES.encode()), SEQUENCE_ROWS),
        "a.inter": (ATOMIC.encode(), atomic_cells(ATOMIC)),
        "a.item": (ITEMS.encode(), {f"i{item}": f"Toy {item}" for item in range(12)}),
        "a.csv": (TABLE.encode(), split_cells(TABLE, ",")),
        "a.parquet": (PARQUET, FRAME.rows()),
        "toys.index.json": (INDEX.encode(), SIDS),
        "train.csv": (csv_text(minionerec_rows("train")).encode(), [(h, [t]) for _, h, t in PROMPTS["train"]]),
        "train.parquet": (CHATS_FILE, polars_chats(CHATS_FILE)),
    }
    assert bases.keys() == CASES.keys()
    for name, (content, value) in bases.items():
        assert outcome(tmp_path, name, CASES[name][0], Damage(content, value)) == "justified"
