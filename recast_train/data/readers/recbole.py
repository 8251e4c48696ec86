"""Readers of RecBole's atomic files: text whose header names and types each column."""

from pathlib import Path

import polars as pl

from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import TableColumns, candidates
from recast_train.data.readers.delimited import Layout, delimited_rows, layout_of
from recast_train.data.readers.item_text import read_titles
from recast_train.data.readers.plain_table import read_delimited

INTER_COLUMNS = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
_LIST = "token_seq"

__all__ = ["INTER_COLUMNS", "read_atomic", "read_titles"]


def read_atomic(path: Path, columns: TableColumns | None = None) -> pl.DataFrame:
    """A RecBole `.inter` file as `read_table` reads it: columns user, item and, where there is one, timestamp.

    The header names and types the columns (`user_id:token item_id:token timestamp:float`), in any order and with more of them.
    Ratings are not read: each row is an interaction. A file of RecBole's sequential benchmarks (a list of earlier items beside
    each item) is read as the sequences that its longest rows hold. Raises DataError for a header without types, rows of a
    user that are no part of its longest one, and what `read_table` refuses.
    """
    layout, columns = layout_of(path), columns or TableColumns()
    if not layout.types:
        mend = "name the columns as in user_id:token item_id:token, or read it as a table"
        raise DataError(f"{path}: line 1: no header of RecBole's (name:type) but {list(layout.header)}; {mend}")
    lists = [place for place, kind in enumerate(layout.types) if kind == _LIST and _lists_items(layout.names[place])]
    return _sequential(path, layout, columns, lists[0]) if lists else read_delimited(path, layout, columns)


def _lists_items(name: str) -> bool:
    return bool(candidates([name.removesuffix("_list").removesuffix("s")], "item"))


def _sequential(path: Path, layout: Layout, columns: TableColumns, at: int) -> pl.DataFrame:
    """The longest row of each user, its list and then its item; the other rows must begin it."""
    names = [name for place, name in enumerate(layout.names) if place != at]
    (user,) = candidates(names, "user")[:1] or [None]
    (item,) = candidates(names, "item")[:1] or [None]
    if user is None or item is None or columns != TableColumns():
        found = f"{list(layout.names)} is a sequential file of RecBole's without a user or session, or an item, of a known name"
        raise DataError(f"{path}: line 1: {found}; name them so, and no columns")
    user, item = (place + (place >= at) for place in (user, item))
    longest: dict[str, list[str]] = {}
    rows: list[tuple[int, str, list[str]]] = []
    for line, cells in delimited_rows(path, layout, header=True):
        whole = [*cells[at].split(), cells[item]]
        if not cells[user] or not all(whole):
            raise DataError(f"{path}: line {line}: found {list(cells)}; give every row a user and an item")
        rows.append((line, cells[user], whole))
        if len(whole) > len(longest.get(cells[user], ())):
            longest[cells[user]] = whole
    for line, name, whole in rows:
        if longest[name][: len(whole)] != whole:
            mend = "lists that were cut cannot be put together; give the .inter file they were made from"
            raise DataError(f"{path}: line {line}: the items of {name!r} do not begin its longest row; {mend}")
    pairs = [(name, one) for name, items in longest.items() for one in items]
    return pl.DataFrame(pairs, schema={"user": pl.String, "item": pl.String}, orient="row")
