"""CSV with a header, in pieces of bounded size."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.columns import Columns
from recast_analysis.audit.reading.piece import Piece
from recast_sim.runs.table_files import check_width, csv_rows, text_lines

CHUNK = 1 << 18  # rows held as Python strings at once
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks", ":": "colons"}
_HEADER = 1 << 16  # characters of a header that are looked at
_SURE = ("\t", ";", "|")
_TRUTHS = {"true": "1", "false": "0"}
_Rows = list[tuple[int, list[str]]]


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns, all of them text until a role says more. Raises AuditError for a repeated one, or cells not parted by commas."""
    _check_separator(path)
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
    while chunk := list(islice(rows, CHUNK)):
        for line, cells in chunk:
            check_width(path, line, cells, header, AuditError)
        texts = {name: [cells[place] for _, cells in chunk] for name, place in places.items()}
        frame = pl.DataFrame(texts, schema=dict.fromkeys(places, pl.String))
        yield _piece(frame, chunk, places, layout)


def _check_separator(path: Path) -> None:
    """By the header alone, since the cells below it may hold any text; blanks and colons may stand in names of columns."""
    line, header = next(((line, text.strip()) for line, text in text_lines(path, AuditError) if text.strip()), (1, ""))
    header = next(iter(header.splitlines()), "")[:_HEADER]
    columns = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in (",", *_SEPARATORS)}
    for mark, words in _SEPARATORS.items():
        if columns[mark] > columns[","] and (mark in _SURE or columns[","] == 1):
            found = f"{header[:60]!r} is separated by {words}"
            raise AuditError(f"{path}: line {line}: {found}; write commas between the columns (CSV)")


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
