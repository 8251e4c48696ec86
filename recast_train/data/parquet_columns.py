"""Parquet files through polars, a column's type checked and every fault of the file turned into a DataError."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from recast_train.data.data_error import DataError

MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def scan_parquet(path: Path, wanted: Mapping[str, tuple[type[pl.DataType], ...]]) -> pl.LazyFrame:
    """The `wanted` columns (name to the types it may have) of one parquet file, not yet read: collect in `parquet_errors`.

    Raises DataError for a file that is not parquet or has been cut off, no rows, a missing column, or another type.
    """
    with parquet_errors(path):
        with path.open("rb") as file:
            start, size = file.read(len(MAGIC)), file.seek(0, 2)
            file.seek(max(0, size - len(MAGIC)))
            end = file.read()
        if start != MAGIC or end != MAGIC:
            found = "the file is empty" if not size else f"begins with {start!r} and ends with {end!r}"
            raise DataError(f"{path}: not a whole parquet file ({found}); is it cut off? fetch it again")
        frame = pl.scan_parquet(path, glob=False)
        schema = frame.collect_schema()
        for name, kinds in wanted.items():
            if name not in schema:
                raise DataError(f"{path}: no column {name!r} among {schema.names()}; name it so")
            if schema[name].base_type() not in kinds:
                names = " or ".join(kind.__name__ for kind in kinds)
                raise DataError(f"{path}: column {name!r} has type {schema[name]}; write it as {names}")
        if not frame.select(pl.len()).collect().item():
            raise DataError(f"{path}: row 0: missing, the file has no rows; write it again")
        return frame.select(*wanted)


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn what polars raises at a damaged file into a DataError; its Rust panics are no Exceptions."""
    try:
        yield
    except (PolarsError, PanicException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable as parquet ({first}); is it damaged? fetch it again") from error
