"""The columns that a reader wants of a CSV or parquet file; every fault of the file is a DataError."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from recast_sim.runs.table_files import check_width, csv_rows, file_faults, scan_parquet
from recast_train.data.data_error import DataError


def parquet_columns(path: Path, wanted: Mapping[str, tuple[type[pl.DataType], ...]]) -> pl.LazyFrame:
    """The `wanted` columns (name to the types it may have) of one file, not yet read: collect in `file_faults`.

    Raises DataError for what `scan_parquet` refuses, a missing column, or another type.
    """
    frame = scan_parquet(path, DataError)
    with file_faults(path, DataError):
        schema = frame.collect_schema()
    for name, kinds in wanted.items():
        if name not in schema:
            raise DataError(f"{path}: no column {name!r} among {schema.names()}; name it so")
        if schema[name].base_type() not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise DataError(f"{path}: column {name!r} has type {schema[name]}; write it as {names}")
    return frame.select(*wanted)


def csv_columns(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The `wanted` cells of each row, with the number of the row's last line; the first line is the header.

    Raises DataError with file and line for what `csv_rows` and `check_width` refuse, a missing or repeated column, and a blank
    line between rows.
    """
    rows = csv_rows(path, DataError)
    _, header = next(rows, (1, []))
    places = [_place(path, header, name) for name in wanted]
    blank = 0
    for line, cells in rows:
        if not cells:  # at the end of a file it does no harm
            blank = blank or line
            continue
        if blank:
            raise DataError(f"{path}: line {blank}: the line is empty, and more follow; drop it")
        check_width(path, line, cells, header, DataError)
        yield line, [cells[place] for place in places]


def _place(path: Path, header: list[str], name: str) -> int:
    if not header:
        raise DataError(f"{path}: line 1: the file is empty; fetch it again")
    if header.count(name) != 1:
        raise DataError(f"{path}: line 1: column {name!r} is there {header.count(name)} times in {header}; name it so once")
    return header.index(name)
