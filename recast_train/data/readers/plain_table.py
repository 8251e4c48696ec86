"""Reader of plain interaction tables: user, item and, where there is one, timestamp, in parquet or CSV."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recast_sim.configio import Checked
from recast_sim.runs.table_files import file_faults
from recast_train.data.data_error import DataError
from recast_train.data.wanted_columns import csv_columns, parquet_columns

CHUNK = 1 << 19  # CSV rows held as Python strings at once
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
_IDS = (pl.String, pl.Categorical, pl.UInt64, *_INTEGERS)
_TIMES = (pl.Float32, pl.Float64, pl.Date, pl.Datetime, *_INTEGERS)


@dataclass(frozen=True)
class TableColumns(Checked, error=DataError):
    """Names of a table's columns.

    Attributes:
        timestamp: "" for a table without one: the order of its rows is the time.
    """

    user: str = "user"
    item: str = "item"
    timestamp: str = "timestamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.user or not self.item or len({self.user, self.item, self.timestamp}) < 3:
            raise DataError(f"TableColumns: {self} must name different columns, and user and item at least; fix the names")


def read_table(path: Path, columns: TableColumns | None = None) -> pl.DataFrame:
    """Columns user, item (strings) and timestamp (Int64 or Float64; absent where `columns` has none), in the file's order.

    A name that ends in .parquet is read as parquet, any other as CSV with a header. Ids are strings or integers; a timestamp
    is a number, or in parquet a date or datetime, which becomes its integer count of days, or of its own unit, from 1970.
    Whole numbers stay integers: nanoseconds do not fit a float. Raises DataError with file, row (parquet, from 0) or line
    (CSV) and column for an id that is missing or empty, a timestamp that is missing or not finite, and what `parquet_columns`
    and `csv_columns` refuse. A CSV file cut inside its last cell cannot be told apart.
    """
    columns = columns or TableColumns()
    names = {columns.user: "user", columns.item: "item"}
    names |= {columns.timestamp: "timestamp"} if columns.timestamp else {}
    if path.suffix == ".parquet":
        place, frame = "row", _parquet(path, names)
    else:
        place, frame = "line", _csv(path, names)
    for column, name in names.items():
        bad = pl.col(name).is_null() | ((pl.col(name) == "") if name != "timestamp" else pl.lit(False))
        first = frame.filter(bad).head(1)
        if first.height:
            mend = "write a finite number" if name == "timestamp" else "give every row an id"
            at, value = first.select("place", f"{name} found").row(0)
            raise DataError(f"{path}: {place} {at}, column {column}: found {value!r}; {mend}")
    return frame.select(*names.values())


def _parquet(path: Path, names: dict[str, str]) -> pl.DataFrame:
    wanted = {column: _TIMES if name == "timestamp" else _IDS for column, name in names.items()}
    lazy = parquet_columns(path, wanted)
    with file_faults(path, DataError):
        frame = lazy.rename(names).with_row_index("place").collect(engine="streaming")
    ids = [pl.col(name).cast(pl.String) for name in ("user", "item")]
    times = [_finite(frame["timestamp"].to_physical())] if "timestamp" in frame.columns else []
    found = [pl.col(name).alias(f"{name} found") for name in names.values()]
    return frame.with_columns(*found).with_columns(*ids, *times)


def _csv(path: Path, names: dict[str, str]) -> pl.DataFrame:
    parts: list[pl.DataFrame] = []
    rows: list[tuple[str | int, ...]] = []
    for line, cells in csv_columns(path, list(names)):
        rows.append((line, *cells))
        if len(rows) == CHUNK:
            parts.append(_strings(rows, names))
            rows = []
    frame = pl.concat([*parts, _strings(rows, names)])
    found = [pl.col(name).alias(f"{name} found") for name in names.values()]
    frame = frame.with_columns(*found)
    if "timestamp" not in frame.columns:
        return frame
    whole = frame["timestamp"].cast(pl.Int64, strict=False)
    return frame.with_columns(_finite(frame["timestamp"].cast(pl.Float64, strict=False)) if whole.has_nulls() else whole)


def _strings(rows: list[tuple[str | int, ...]], names: dict[str, str]) -> pl.DataFrame:
    schema = {"place": pl.Int64, **dict.fromkeys(names.values(), pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _finite(column: pl.Series) -> pl.Series:
    """As Int64, or as Float64 with null for what is not finite."""
    if not column.dtype.is_float():
        return column.cast(pl.Int64)
    wide = column.cast(pl.Float64)
    return wide.set(~wide.is_finite().fill_null(True), None)
