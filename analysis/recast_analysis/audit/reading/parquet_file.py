"""Parquet in lazy slices, which polars streams: of a whole file at once it would hold more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.columns import Columns
from recast_analysis.audit.reading.piece import Piece
from recast_sim.runs.table_files import file_faults, literal_scan, scan_parquet

SLICE = 1 << 20  # rows; a slice decodes the row groups that it touches


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns and types. Raises AuditError for a file that is cut off or damaged, or has no rows."""
    frame = scan_parquet(path, AuditError)
    with file_faults(path, AuditError):
        return dict(frame.collect_schema())


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a SLICE of rows, not yet read: collect it in `file_faults`."""
    whole = literal_scan(path).select(*layout.types)
    for start in range(0, int(whole.select(pl.len()).collect().item()), SLICE):
        yield _piece(whole.slice(start, SLICE), start)


def _piece(frame: pl.LazyFrame, start: int) -> Piece:
    def origin(row: int) -> tuple[str, dict[str, Any]]:
        return f"row {start + row}", frame.slice(row, 1).collect().row(0, named=True)

    return Piece(frame, origin)
