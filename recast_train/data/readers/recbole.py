"""Readers of RecBole's atomic files: tab-separated text whose header names each column's type."""

from pathlib import Path

import numpy as np
import polars as pl

from recast_train.data.data_error import DataError

INTER_COLUMNS = {
    "user_id:token": "user",
    "item_id:token": "item",
    "rating:float": "rating",
    "timestamp:float": "timestamp",
}


def read_atomic(path: Path) -> pl.DataFrame:
    """A RecBole atomic `.inter` file as columns user, item (strings), rating, timestamp (floats; seconds in ML-100K).

    The header names and types the columns (`user_id:token item_id:token rating:float timestamp:float`, tabs between
    them, any order, more columns allowed). Raises DataError with file, line and column for an unreadable or empty
    file, a missing column, a line with more or fewer fields than the header (as a cut-off last line has), an empty
    id, or a rating or timestamp that is not a finite number. A file cut inside its last number cannot be told apart.
    """
    frame = _read_columns(path, INTER_COLUMNS)
    for name in ("user", "item"):
        _refuse(path, frame, pl.col(name) == "", name, "give every row an id")
    for name in ("rating", "timestamp"):
        finite = pl.col(name).cast(pl.Float64, strict=False).is_finite().fill_null(False)
        _refuse(path, frame, ~finite, name, "write a finite number")
    return frame.select("user", "item", pl.col("rating", "timestamp").cast(pl.Float64))


def read_titles(path: Path) -> dict[str, str]:
    """Item id to title from a RecBole atomic `.item` file (columns `item_id:token`, `movie_title:token_seq`).

    Raises DataError as `read_atomic` does, and for an item on two lines.
    """
    frame = _read_columns(path, {"item_id:token": "item", "movie_title:token_seq": "title"})
    _refuse(path, frame, pl.col("item") == "", "item", "give every row an id")
    _refuse(path, frame, ~pl.col("item").is_first_distinct(), "item", "it is there twice, give an item one line")
    return dict(frame.select("item", "title").iter_rows())


def _read_columns(path: Path, wanted: dict[str, str]) -> pl.DataFrame:
    """The `wanted` header cells of a tab-separated file under their new names, as strings, with the line number."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # universal newlines: \r\n arrives as \n
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as UTF-8 text ({error}); give a RecBole atomic file") from error
    if not text.strip():
        raise DataError(f"{path}: line 1: the file is empty; fetch it again")
    lines = text.removesuffix("\n").split("\n")
    header = lines[0].split("\t")
    for cell in wanted:
        if cell not in header:
            raise DataError(f"{path}: line 1: no column {cell!r} among {header}; name it so in the header")
    if len(lines) == 1:
        raise DataError(f"{path}: line 2: missing, the file has a header and no rows; fetch it again")
    frame = pl.DataFrame({"line": np.arange(2, len(lines) + 1), "text": lines[1:]})
    fields = pl.col("text").str.split("\t")
    _refuse_ragged(path, frame.filter(fields.list.len() != len(header)), header)
    return frame.select("line", *(fields.list.get(header.index(cell)).alias(name) for cell, name in wanted.items()))


def _refuse_ragged(path: Path, ragged: pl.DataFrame, header: list[str]) -> None:
    for line, text in ragged.head(1).iter_rows():
        found = text.split("\t")
        column = f"column {header[len(found)]!r} is missing" if len(found) < len(header) else "too many fields"
        raise DataError(f"{path}: line {line}: {column} in {found} (header: {header}); is it cut off? fetch it again")


def _refuse(path: Path, frame: pl.DataFrame, bad: pl.Expr, column: str, mend: str) -> None:
    first = frame.filter(bad).head(1)
    if first.height:
        line, value = first.select("line", column).row(0)
        raise DataError(f"{path}: line {line}, column {column}: found {value!r}; {mend}")
