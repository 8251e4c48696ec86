"""Reader of sequence files: one user a line, `user item item item ...` in time order, plain or compressed (.xz, .gz)."""

from pathlib import Path

import numpy as np
import polars as pl

from recast_sim.runs.table_files import NO_IDS, text_lines
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import is_header

CHUNK = 1 << 20  # interactions held as Python strings at once


def read_sequences(path: Path) -> pl.DataFrame:
    """Columns user, item (strings), one row per interaction: users in the order of lines, items in that of the line.

    There are no timestamps: the position is the time, so no tie has to be broken. Ids are parted by blanks or tabs. Raises
    DataError with file and line for an empty file, an empty line before others, a user without items, a user on two lines, a
    first line that is a header, and what `text_lines` refuses. A plain file cut inside its last id, or after an item of it,
    cannot be told apart.
    """
    line_of: dict[str, int] = {}
    parts: list[pl.DataFrame] = []
    users: list[str] = []
    lengths: list[int] = []
    items: list[str] = []
    blank = 0
    for number, line in text_lines(path, DataError):
        fields = line.split()
        if not fields:  # at the end of a file it does no harm
            blank = blank or number
            continue
        if blank or len(fields) < 2:
            found = "the line is empty" if blank else f"user {fields[0]!r} has no item"
            mend = "write `user item item ...` or drop the line"
            raise DataError(f"{path}: line {blank or number}, column item: {found}; {mend}")
        if missing := NO_IDS.intersection(fields):
            raise DataError(f"{path}: line {number}: found {min(missing)!r}, which is no id; leave it out")
        if number == 1 and is_header(fields):
            raise DataError(f"{path}: line 1: {fields[:6]} is a header; drop it, or read the file as a table")
        if fields[0] in line_of:
            again = f"{fields[0]!r} is on line {line_of[fields[0]]} too"
            raise DataError(f"{path}: line {number}, column user: {again}; give a user one line, or read the file as a table")
        line_of[fields[0]] = number
        users.append(fields[0])
        lengths.append(len(fields) - 1)
        items += fields[1:]
        if len(items) >= CHUNK:
            parts.append(_frame(users, lengths, items))
            users, lengths, items = [], [], []
    if not line_of:
        raise DataError(f"{path}: line 1: the file is empty; fetch it again")
    return pl.concat([*parts, _frame(users, lengths, items)])


def _frame(users: list[str], lengths: list[int], items: list[str]) -> pl.DataFrame:
    owner = pl.Series("user", users, dtype=pl.String).gather(
        np.repeat(np.arange(len(users)), np.array(lengths, dtype=np.int64))
    )
    return pl.DataFrame([owner, pl.Series("item", items, dtype=pl.String)])
