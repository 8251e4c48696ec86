"""CSV with a header, by the standard library's strict reader: polars takes an unclosed quote for text."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from analysis.audit.audit_error import AuditError, readable
from analysis.audit.columns import Columns
from analysis.audit.piece import Piece

CHUNK = 1 << 18  # rows held as Python strings at once
_FIELD = 1 << 27  # characters that a cell may have
_Rows = list[tuple[int, list[str]]]


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns, all of them text until a role says more. Raises AuditError for a repeated one."""
    _, header = next(_rows(path), (1, []))
    if twice := [name for name in header if header.count(name) > 1]:
        raise AuditError(f"{path}: line 1: column {twice[0]!r} is there twice in {header}; name each once")
    return dict.fromkeys(header, pl.String())


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a CHUNK of rows. Raises AuditError with the line for a row of another width, quotes that do not close, no rows.

    A file that is cut inside its last cell cannot be told from a whole one.
    """
    rows = _rows(path)
    _, header = next(rows)
    places = {name: header.index(name) for name in layout.types}
    last = 1
    while chunk := list(islice(rows, CHUNK)):
        _check_widths(path, header, chunk)
        last = chunk[-1][0]
        texts = {name: [cells[place] for _, cells in chunk] for name, place in places.items()}
        frame = pl.DataFrame(texts, schema=dict.fromkeys(places, pl.String))
        yield _piece(frame, chunk, places, layout)
    if last == 1:
        raise AuditError(f"{path}: line 2: missing, the file has a header and no rows; write it again")


def _piece(frame: pl.DataFrame, chunk: _Rows, places: dict[str, int], layout: Columns) -> Piece:
    typed = [
        pl.col(name).cast(kind, strict=False) if kind.is_numeric() else pl.col(name).replace("", None)
        for name, kind in layout.types.items()
        if name != layout.column("completion")  # which may be empty
    ]

    def origin(row: int) -> tuple[str, dict[str, Any]]:
        line, cells = chunk[row]
        return f"line {line}", {name: cells[place] for name, place in places.items()}

    return Piece(frame.lazy().with_columns(typed), origin)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_FIELD)
    with readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            yield from ((rows.line_num, cells) for cells in rows if cells)
        except csv.Error as error:
            raise AuditError(f"{path}: line {rows.line_num}: not CSV ({error}); is it cut off? write it again") from error
        except UnicodeDecodeError as error:
            where = f"after line {rows.line_num}"
            raise AuditError(f"{path}: {where}: not readable as UTF-8 text ({error}); save it as UTF-8") from error


def _check_widths(path: Path, header: list[str], chunk: _Rows) -> None:
    for line, cells in chunk:
        if len(cells) != len(header):
            fault = f"column {header[len(cells)]!r} is missing" if len(cells) < len(header) else "too many cells"
            raise AuditError(f"{path}: line {line}: {fault} in {cells} (header: {header}); is it cut off?")
