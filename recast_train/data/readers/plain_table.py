"""Reader of interaction tables: user, item and, where there is one, time, in parquet or in text with or without a header."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recast_sim.runs.table_files import NO_IDS, begins_as_parquet, file_faults, scan_parquet
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import ROLES, TableColumns, find_columns, is_header, place_of
from recast_train.data.readers.delimited import Layout, delimited_rows, layout_of
from recast_train.data.wanted_columns import parquet_columns

_SECONDS, _MILLISECONDS = 10**8, 10**11  # from 1970 to 1973; as seconds the latter are the year 5138
CHUNK = 1 << 19  # rows of text held as Python strings at once
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
_IDS = (pl.String, pl.Categorical, pl.UInt64, *_INTEGERS)
_TIMES = (pl.String, pl.Float32, pl.Float64, pl.Date, pl.Datetime, *_INTEGERS)


def read_table(path: Path, columns: TableColumns | None = None) -> pl.DataFrame:
    """Columns user, item (strings) and timestamp (Int64 or Float64; absent where there is none), in the file's order.

    A file that begins as parquet, or whose name ends in .parquet, is read as such, any other as text parted by tabs, commas,
    semicolons, bars, `::` or blanks, with a header, or without one where `columns` gives places. Ids are strings or integers.
    Times are numbers, ISO 8601 (then microseconds from 1970, without an offset taken as UTC), or in parquet dates or datetimes,
    which become the integer count of days, or of their own unit, from 1970; whole numbers stay integers: nanoseconds do not fit
    a float. A column `label` of 0 and 1 (-1 and 1, false and true) says what users did not take, so such rows are refused.

    Raises DataError with file, row (parquet, from 0) or line (text) and column for an id that is missing, empty or a word for
    that (NO_IDS), or written in two ways, a time that is missing, not finite or of another kind or unit than the first, and
    what `find_columns`, `parquet_columns` and `delimited_rows`
    refuse. A file cut inside its last cell cannot be told apart.
    """
    columns = columns or TableColumns()
    if path.suffix == ".parquet" or begins_as_parquet(path, DataError):
        return _checked(path, "row", *_parquet(path, columns))
    return read_delimited(path, layout_of(path), columns)


def read_delimited(path: Path, layout: Layout, columns: TableColumns) -> pl.DataFrame:
    """`read_table` of text whose layout is known."""
    header = not columns.by_place or is_header(layout.header) or _reads_as_header(layout)
    if not columns.by_place:
        places = find_columns(f"{path}: line 1", layout.names, columns)
    elif header and is_header(layout.header):
        places = find_columns(f"{path}: line 1", layout.names, TableColumns())
    else:
        given = {role: getattr(columns, role) for role in ROLES if getattr(columns, role)}
        places = {role: place_of(path, name, len(layout.header)) for role, name in given.items()}
    names = {role: layout.names[place] if header else f"{place + 1}" for role, place in places.items()}
    label = [place for place, name in enumerate(layout.names) if header and name.lower() == "label"]
    if label:
        places, names = places | {"label": label[0]}, names | {"label": layout.names[label[0]]}
    return _checked(path, "line", _text(path, layout, header, places), names)


def _reads_as_header(layout: Layout) -> bool:
    """Line 1 has a word where all other rows have numbers."""
    columns = zip(layout.header, *layout.rows, strict=False) if layout.rows and layout.even else ()
    return any(not _is_number(first) and all(map(_is_number, rest)) for first, *rest in columns)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _checked(path: Path, place: str, frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """The wanted columns, once each row is whole."""
    for role, name in names.items():
        no_id = pl.col(role).cast(pl.String).is_in(["", *NO_IDS]) if role in ("user", "item") else pl.lit(False)
        bad = pl.col(role).is_null() | no_id
        first = frame.filter(bad).head(1) if role != "label" else frame.head(0)
        if first.height:
            times = "write finite numbers or ISO 8601 times, one kind and unit alone"
            mend = times if role == "timestamp" else "give every row an id, or leave it out"
            at, value = first.select("place", f"{role} found").row(0)
            raise DataError(f"{path}: {place} {at}, column {name}: found {value!r}; {mend}")
    for role in ("user", "item"):
        _refuse_twins(path, frame[role], names[role])
    if "label" in names:
        _refuse_zeros(path, frame["label"].cast(pl.String), names["label"])
    return frame.select(role for role in ROLES if role in names)


def _refuse_twins(path: Path, column: pl.Series, name: str) -> None:
    """One id may not be written in two ways: with blanks around it, or as a whole number and a float."""
    ids = column.unique(maintain_order=True)
    plain = ids.str.strip_chars().str.replace(r"^(-?[0-9]+)\.0+$", "${1}")
    if (again := plain.filter(plain.is_duplicated())).len():
        twins = ids.filter(plain == again[0])
        raise DataError(f"{path}: column {name}: found {twins[0]!r} and {twins[1]!r}; write an id in one way")


def _refuse_zeros(path: Path, label: pl.Series, name: str) -> None:
    """Labels of two values say what users took and what they did not: 0 and 1, -1 and 1, false and true."""
    value = label.str.to_lowercase().replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
    for no in (0, -1):
        count = int((value == no).sum())
        if count and value.is_in([float(no), 1.0]).all():
            found = f"{count} of {len(label)} rows are {label.filter(value == no)[0]}, what users did not take"
            raise DataError(f"{path}: column {name}: {found}; leave them out")


def _parquet(path: Path, columns: TableColumns) -> tuple[pl.DataFrame, dict[str, str]]:
    lazy = scan_parquet(path, DataError)
    with file_faults(path, DataError):
        every = lazy.collect_schema().names()
    roles = {every[place]: role for role, place in find_columns(str(path), every, columns).items()}
    lazy = parquet_columns(path, {name: _TIMES if role == "timestamp" else _IDS for name, role in roles.items()})
    label = [name for name in every if name.lower() == "label"]
    with file_faults(path, DataError):
        frame = lazy.rename(roles).with_row_index("place").collect(engine="streaming")
        if label:
            frame = frame.with_columns(scan_parquet(path, DataError).select(pl.col(label[0]).alias("label")).collect())
    found = [pl.col(role).alias(f"{role} found") for role in roles.values()]
    ids = [pl.col(role).cast(pl.String) for role in ("user", "item")]
    times = [_times(frame["timestamp"])] if "timestamp" in frame.columns else []
    names = {role: name for name, role in roles.items()} | ({"label": label[0]} if label else {})
    return frame.with_columns(*found).with_columns(*ids, *times), names


def _text(path: Path, layout: Layout, header: bool, places: Mapping[str, int]) -> pl.DataFrame:
    parts: list[pl.DataFrame] = []
    rows: list[tuple[str | int, ...]] = []
    for line, cells in delimited_rows(path, layout, header):
        rows.append((line, *(cells[place] for place in places.values())))
        if len(rows) == CHUNK:
            parts.append(_strings(rows, places))
            rows = []
    frame = pl.concat([*parts, _strings(rows, places)])
    frame = frame.with_columns(pl.col(role).alias(f"{role} found") for role in places)
    return frame.with_columns(_times(frame["timestamp"])) if "timestamp" in places else frame


def _strings(rows: Sequence[tuple[str | int, ...]], places: Mapping[str, int]) -> pl.DataFrame:
    schema = {"place": pl.Int64, **dict.fromkeys(places, pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _times(column: pl.Series) -> pl.Series:
    """As Int64, or as Float64; null for what is no time, or of another kind than the first."""
    if column.dtype == pl.String:
        whole = column.cast(pl.Int64, strict=False)
        if not whole.has_nulls():
            return _of_one_unit(whole)
        first = column.drop_nulls().head(1).to_list()
        if first and not _is_number(first[0]) and _microseconds(first[0]) is not None:
            values = [None if text is None or _is_number(text) else _microseconds(text) for text in column.to_list()]
            return pl.Series(column.name, values, dtype=pl.Int64)
        column = column.cast(pl.Float64, strict=False)
    column = column.to_physical()
    if not column.dtype.is_float():
        return _of_one_unit(column.cast(pl.Int64))
    wide = column.cast(pl.Float64)
    return _of_one_unit(wide.set(~wide.is_finite().fill_null(True), None))


def _of_one_unit(times: pl.Series) -> pl.Series:
    """Null for what is seconds among milliseconds (or finer), or the other way round, where all may be one or the other."""
    lowest, first = times.min(), times.drop_nulls().head(1).to_list()
    if not first or not isinstance(lowest, int | float) or lowest < _SECONDS:
        return times
    return times.set((times >= _MILLISECONDS) != (first[0] >= _MILLISECONDS), None)


def _microseconds(text: str) -> int | None:
    """From 1970, of an ISO 8601 date or time; None for any other text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    past = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
