"""Which format a path holds, told by its content, with the reason; where two readings are possible neither is taken."""

import re
from pathlib import Path

from recast_sim.runs.table_files import begins_as_parquet, file_faults, literal_scan
from recast_train.data.data_config import FORMATS, Format
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import TableColumns, candidates, is_header
from recast_train.data.readers.delimited import Layout, layout_of
from recast_train.data.readers.minionerec import COLUMNS

_CHOICES = ", ".join(FORMATS[1:])
_ID = re.compile(r"[\w.:/-]*[0-9][\w.:/-]*")  # words without a digit may be text as well
_EARLIEST = 1e8  # seconds from 1970 to 1973: larger whole numbers in a last column are times


def recognise(path: Path, columns: TableColumns | None = None) -> tuple[Format, str]:
    """The format of a file or folder and what tells it; `columns` are names or places that the user gave.

    Raises DataError, with what was found and the mend, for what is no known format, and for what may be two of them.
    """
    if path.is_dir():
        if any(path.rglob("*.index.json")):
            return "minionerec", "the folder holds an index.json"
        if any(path.rglob("*.parquet")):
            return "openonerec", "the folder holds parquet files"
        raise DataError(f"{path}: no *.index.json and no *.parquet in the folder; give a file, or --format of {_CHOICES}")
    if begins_as_parquet(path, DataError):
        with file_faults(path, DataError):
            chats = "messages" in literal_scan(path).collect_schema()
        return ("openonerec", "parquet with a column messages") if chats else ("table", "parquet without messages")
    if path.name.endswith(".index.json"):
        return "minionerec", "an index.json"
    return _of_text(path, layout_of(path), columns or TableColumns())


def _of_text(path: Path, layout: Layout, columns: TableColumns) -> tuple[Format, str]:
    first = layout.separator.join(layout.header)
    if first.lstrip()[:1] in ("{", "[") and not layout.types:
        raise DataError(f"{path}: line 1: {first[:60]!r} looks like JSON; write a table, or give --format of {_CHOICES}")
    if layout.types:
        return "atomic", f"line 1 is a header of RecBole's, parted by {layout.parted_by}"
    if set(COLUMNS) <= set(layout.names):
        return "minionerec", "line 1 has MiniOneRec's columns"
    if columns.by_place:
        return "table", f"columns are given by place, parted by {layout.parted_by}"
    told = [role for role in ("user", "item") if getattr(columns, role) in layout.names or candidates(layout.names, role)]
    if len(told) == 2:
        return "table", f"line 1 is a header that names users and items, parted by {layout.parted_by}"
    if told or is_header(layout.names) or _is_header_by_form(layout):
        names = list(layout.names)
        raise DataError(
            f"{path}: line 1: {names[:9]} looks like a header without the known name of a user or an item; "
            "say which by --columns.user and --columns.item, or drop the line where the others are a user and items each"
        )
    return _without_header(path, layout)


def _without_header(path: Path, layout: Layout) -> tuple[Format, str]:
    rows = (layout.header, *layout.rows)
    words = [" ".join(row).split() for row in rows]  # as sequences are parted
    blanks = layout.separator in (" ", "\t")
    users = [row[0] for row in words]
    once, even = len(set(users)) == len(users), len(layout.header) > 1 and layout.even
    timed = even and len(layout.header) > 2 and all(_is_time(row[-1]) for row in rows)
    if even and not (blanks and once and not timed):
        last = f"{len(layout.header)}" if timed else "''"
        why = f"{len(layout.header)} columns parted by {layout.parted_by}"
        why += ", the last of times" if timed else ""
        why += "" if once else ", the first with repeats"
        also = " or sequences of users" if blanks and once else ""
        mend = f"say which is which, for example --columns.user 1 --columns.item 2 --columns.timestamp {last}"
        mend += ", or --format sequences" if also else ""
        raise DataError(f"{path}: line 1: looks like a table without a header ({why}){also}; {mend}")
    if blanks and once and all(len(row) > 1 for row in words) and all(_ID.fullmatch(word) for row in words for word in row):
        return "sequences", "each line is a user and items, no user twice"
    if blanks and not once and all(_ID.fullmatch(word) for row in words for word in row):
        twice = next(user for place, user in enumerate(users) if user in users[:place])
        found = f"lines of several lengths, and {twice!r} begins two of them"
        raise DataError(f"{path}: {found}: neither a table nor a user a line; mend the file")
    shown = layout.separator.join(layout.header)[:80]
    raise DataError(f"{path}: line 1: {shown!r} begins no known format; give --format of {_CHOICES}")


def _is_header_by_form(layout: Layout) -> bool:
    """Words in line 1 over numbers in all other rows."""
    cells = [cell for row in layout.rows for cell in row]
    return bool(cells) and layout.even and all(map(_is_number, cells)) and not any(map(_is_number, layout.header))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?", cell.strip(), re.IGNORECASE) is not None


def _is_time(cell: str) -> bool:
    return bool(re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell)) or (_is_number(cell) and float(cell) >= _EARLIEST)
