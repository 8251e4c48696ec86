"""JSON lines in blocks of bounded size.

polars parses a block. One that it refuses is parsed line by line: that finds the fault, or, where polars stumbled over a column
without a role (Python writes a metric that is not a number as NaN, which is no JSON), reads past it.
"""

import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from analysis.audit.audit_error import AuditError
from analysis.audit.reading.columns import Columns
from analysis.audit.reading.piece import SAMPLE, Piece
from recast_sim.runs.table_files import decoded, file_faults

BLOCK = 32 << 20  # bytes parsed at once
_BOM = b"\xef\xbb\xbf"
_SIMPLE = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String(), type(None): pl.Null()}


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns and types as the first rows have them. Raises AuditError with the line where one of them is no JSON object."""
    found: dict[str, pl.DataType] = {}
    with path.open("rb") as file:
        for number, line in islice(_filled(file, 0), SAMPLE):
            for name, value in _parse(path, number, line).items():
                kind = _type(value)
                if found.get(name, pl.Null()) == pl.Null() or (found[name], kind) == (pl.Int64, pl.Float64):
                    found[name] = kind
    return found


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a block. Raises AuditError with line and column where a line is no JSON object or a value of another type."""
    before = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            block += file.readline()
            yield _piece(path, block, before, layout)
            before += block.count(b"\n")


def _piece(path: Path, block: bytes, before: int, layout: Columns) -> Piece:
    types = _read_as(layout)
    try:
        frame = pl.read_ndjson(io.BytesIO(block.removeprefix(_BOM)), schema=types)
    except (PolarsError, PanicException):
        frame = _line_by_line(path, block, before, types)

    def origin(row: int) -> tuple[str, dict[str, Any]]:
        number, line = next(islice(_filled(io.BytesIO(block), before), row, None))
        return f"line {number}", _parse(path, number, line)

    return Piece(frame.lazy(), origin)


def _line_by_line(path: Path, block: bytes, before: int, types: dict[str, pl.DataType]) -> pl.DataFrame:
    values: dict[str, list[Any]] = {name: [] for name in types}
    for number, line in _filled(io.BytesIO(block), before):
        row = _parse(path, number, line)
        for name, wanted in types.items():
            value = row.get(name)
            if value is not None and _type(value) != wanted and (wanted, _type(value)) != (pl.Float64, pl.Int64):
                raise AuditError(f"{path}: line {number}, column {name}: found {value!r}; write it as {wanted}, as before")
            values[name].append(value)
    with file_faults(path, AuditError):
        return pl.DataFrame(values, schema=types)


def _read_as(layout: Columns) -> dict[str, pl.DataType]:
    """Rewards that begin with whole numbers may go on with others; a target is of any type, and is not read."""
    rewards, targets = layout.columns["reward"], layout.columns.get("target", ())
    types = {name: kind for name, kind in layout.types.items() if name not in targets}
    return types | {name: pl.Float64() for name in rewards if types[name].is_numeric()}


def _filled(file: Iterable[bytes], before: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from `before` + 1."""
    return ((number, line) for number, line in enumerate(file, before + 1) if line.strip())


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    text = decoded(path, number, line, AuditError)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path}: line {number}: not JSON ({error}); is it cut off? write the line again") from error
    if not isinstance(row, dict):
        raise AuditError(f"{path}: line {number}: found {str(row)[:40]}, no JSON object; write one object a line")
    return row


def _type(value: Any) -> pl.DataType:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return pl.Float64()
    if isinstance(value, list) and value:
        if all(type(token) is int for token in value):
            return pl.List(pl.Int64)
        if all(isinstance(message, dict) and isinstance(message.get("content"), str) for message in value):
            return pl.List(pl.Struct({"content": pl.String}))
    return _SIMPLE.get(type(value), pl.Unknown())
