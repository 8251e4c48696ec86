"""Titles of items, from a table of item and title: RecBole's .item, text with a header, parquet, or MiniOneRec's .item.json."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from recast_sim.runs.table_files import begins_as_parquet, file_faults, scan_parquet, text_lines
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import TableColumns, find_columns
from recast_train.data.readers.delimited import delimited_rows, layout_of

_ROLES = ("item", "title")


def read_titles(path: Path, columns: TableColumns | None = None) -> dict[str, str]:
    """Item id to title.

    A file that begins as parquet, or whose name ends in .parquet, is read as such, a name in .json as an object of item ids
    (titles, or objects that hold a `title`), any other as text with a header. Raises DataError with file and place for a file
    that cannot be read, columns that cannot be told, and an item that is there twice or without an id or title.
    """
    parquet = path.suffix == ".parquet" or begins_as_parquet(path, DataError)
    read = _of_parquet if parquet else _of_json if path.suffix == ".json" else _of_text
    found: dict[str, str] = {}
    for where, item, title in read(path, columns or TableColumns()):
        if not isinstance(item, str) or not item or item in found:
            raise DataError(f"{path}: {where}: found the item {item!r}; give every row one, and an item one row")
        if not isinstance(title, str) or not title.strip():
            raise DataError(f"{path}: {where}: item {item!r} has the title {str(title)[:80]!r}; give it a text")
        found[item] = title
    return found


def _of_text(path: Path, columns: TableColumns) -> Iterator[tuple[str, object, object]]:
    layout = layout_of(path)
    places = find_columns(f"{path}: line 1", layout.names, columns, _ROLES)
    for line, cells in delimited_rows(path, layout, header=True):
        yield f"line {line}", cells[places["item"]], cells[places["title"]]


def _of_parquet(path: Path, columns: TableColumns) -> Iterator[tuple[str, object, object]]:
    lazy = scan_parquet(path, DataError)
    with file_faults(path, DataError):
        names = lazy.collect_schema().names()
        places = find_columns(str(path), names, columns, _ROLES)
        frame = lazy.select(pl.col(names[places[role]]).alias(role) for role in _ROLES).collect()
        items = frame["item"].cast(pl.String).to_list()
    rows = enumerate(zip(items, frame["title"].to_list(), strict=True))
    yield from ((f"row {row}", item, title) for row, (item, title) in rows)


def _of_json(path: Path, columns: TableColumns) -> Iterator[tuple[str, object, object]]:
    text = "".join(line for _, line in text_lines(path, DataError))
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); is it cut off? fetch it again") from error
    if not text.lstrip().startswith("{"):
        raise DataError(f'{path}: not an object of items; write {{"item": {{"title": "..."}}, ...}}')
    name = columns.title or "title"
    for item, value in found:
        inner = dict(value) if isinstance(value, list) and all(isinstance(one, tuple) for one in value) else {name: value}
        yield f"item {item!r}", item, inner.get(name)
