"""Parquet in lazy slices, which polars streams: of a whole file at once it would hold more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from analysis.audit.audit_error import AuditError, readable
from analysis.audit.columns import Columns
from analysis.audit.piece import Piece

SLICE = 1 << 20  # rows; a slice decodes the row groups that it touches
_MAGIC = b"PAR1"


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns and types. Raises AuditError for a file that is cut off or damaged, or has no rows."""
    with readable(path):
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - len(_MAGIC)))
            end = file.read()
        if end != _MAGIC:
            raise AuditError(f"{path}: begins as parquet and ends with {end!r}; is it cut off? fetch it again")
        frame = pl.scan_parquet(path, glob=False)
        if not frame.select(pl.len()).collect().item():
            raise AuditError(f"{path}: row 0: missing, the file has no rows; write it again")
        return dict(frame.collect_schema())


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a SLICE of rows, not yet read: collect it in `readable`."""
    whole = pl.scan_parquet(path, glob=False).select(*layout.types)
    for start in range(0, int(whole.select(pl.len()).collect().item()), SLICE):
        yield _piece(whole.slice(start, SLICE), start)


def _piece(frame: pl.LazyFrame, start: int) -> Piece:
    def origin(row: int) -> tuple[str, dict[str, Any]]:
        return f"row {start + row}", frame.slice(row, 1).collect().row(0, named=True)

    return Piece(frame, origin)
