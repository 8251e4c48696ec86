"""CSV with a header, in pieces of bounded size."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.columns import Columns
from recast_analysis.audit.reading.piece import Piece
from recast_sim.runs.table_files import check_width, csv_header, csv_rows

CHUNK = 1 << 18  # rows held as Python strings at once
_TRUTHS = {"true": "1", "false": "0"}
_Rows = list[tuple[int, list[str]]]


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns, all of them text until a role says more. Raises AuditError for a repeated one, or cells not parted by commas."""
    return dict.fromkeys(csv_header(path, AuditError), pl.String())


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a CHUNK of rows. Raises AuditError with the line for a row of another width, quotes that do not close, no rows.

    A file that is cut inside its last cell cannot be told from a whole one.
    """
    rows = _rows(path)
    _, header = next(rows)
    places = {name: header.index(name) for name in layout.types}
    while chunk := list(islice(rows, CHUNK)):
        for line, cells in chunk:
            check_width(path, line, cells, header, AuditError)
        texts = {name: [cells[place] for _, cells in chunk] for name, place in places.items()}
        frame = pl.DataFrame(texts, schema=dict.fromkeys(places, pl.String))
        yield _piece(frame, chunk, places, layout)


def _piece(frame: pl.DataFrame, chunk: _Rows, places: dict[str, int], layout: Columns) -> Piece:
    typed = [
        _number(pl.col(name), kind) if kind.is_numeric() else pl.col(name).replace("", None)
        for name, kind in layout.types.items()
        if name != layout.column("completion")  # which may be empty
    ]

    def origin(row: int) -> tuple[str, dict[str, Any]]:
        line, cells = chunk[row]
        return f"line {line}", {name: cells[place] for name, place in places.items()}

    return Piece(frame.lazy().with_columns(typed), origin)


def _number(text: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """A reward may be written as True or False, as pandas and polars do."""
    if kind.is_float():
        truth = text.str.to_lowercase()
        text = pl.when(truth.is_in(list(_TRUTHS))).then(truth.replace(_TRUTHS)).otherwise(text)
    return text.cast(kind, strict=False)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    return ((line, cells) for line, cells in csv_rows(path, AuditError) if cells)
