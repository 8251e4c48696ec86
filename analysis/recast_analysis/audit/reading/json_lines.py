"""JSON lines in blocks of bounded size.

polars parses a block. One that it refuses is parsed line by line: that finds the fault, or, where polars stumbled over a column
without a role (Python writes a metric that is not a number as NaN, which is no JSON), reads past it. So is one that polars
would read wrongly: messages, whose fields differ from row to row, and halves of surrogate pairs, which become U+FFFD here.
"""

import io
import json
from collections.abc import Iterable, Iterator
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.columns import Columns
from recast_analysis.audit.reading.piece import SAMPLE, Piece
from recast_sim.bounded import open_ordinary
from recast_sim.runs.table_files import file_faults, holds_half_a_letter, json_row, next_line

BLOCK = 32 << 20  # bytes parsed at once
_BOM = b"\xef\xbb\xbf"
_SIMPLE = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String(), type(None): pl.Null()}
_TOKENS = pl.List(pl.Int64)
_MESSAGES = pl.List(pl.Struct({"content": pl.String, "whole": pl.String}))


def schema(path: Path) -> dict[str, pl.DataType]:
    """Columns and types as the first rows have them. Raises AuditError with the line where one of them is no JSON object."""
    found: dict[str, pl.DataType] = {}
    with open_ordinary(path, AuditError) as file:
        lines = (next_line(file, path, number, AuditError) for number in count(1))
        for number, line in islice(_filled(takewhile(bool, lines), 0), SAMPLE):
            for name, value in json_row(path, number, line, AuditError).items():
                kind = _type(value)
                if found.get(name, pl.Null()) == pl.Null() or (found[name], kind) == (pl.Int64, pl.Float64):
                    found[name] = kind
    return found


def pieces(path: Path, layout: Columns) -> Iterator[Piece]:
    """A piece a block. Raises AuditError with line and column where a line is no JSON object or a value of another type."""
    before = 0
    with open_ordinary(path, AuditError) as file:
        while block := file.read(BLOCK):
            block += next_line(file, path, before + block.count(b"\n") + 1, AuditError)
            yield _piece(path, block, before, layout)
            before += block.count(b"\n")


def _piece(path: Path, block: bytes, before: int, layout: Columns) -> Piece:
    types = _read_as(layout)

    def origin(row: int) -> tuple[str, dict[str, Any]]:
        number, line = next(islice(_filled(io.BytesIO(block), before), row, None))
        return f"line {number}", json_row(path, number, line, AuditError)

    if _MESSAGES not in types.values() and not holds_half_a_letter(block):
        try:
            return Piece(pl.read_ndjson(io.BytesIO(block.removeprefix(_BOM)), schema=types).lazy(), origin)
        except (PolarsError, PanicException):
            pass  # the lines one by one say why
    return Piece(_line_by_line(path, block, before, types, _free(layout)).lazy(), origin)


def _line_by_line(path: Path, block: bytes, before: int, types: dict[str, pl.DataType], free: set[str]) -> pl.DataFrame:
    values: dict[str, list[Any]] = {name: [] for name in types}
    for number, line in _filled(io.BytesIO(block), before):
        row = json_row(path, number, line, AuditError)
        for name, wanted in types.items():
            where = f"{path}: line {number}, column {name}"
            values[name].append(_as_text(row.get(name), where) if name in free else _typed(row.get(name), wanted, where))
    with file_faults(path, AuditError):
        return pl.DataFrame(values, schema=types)


def _typed(value: Any, wanted: pl.DataType, where: str) -> Any:
    found = _type(value)
    if found == wanted == _MESSAGES:
        return [_message(one, where) for one in value]
    if value is None or found == wanted or (wanted, found) == (pl.Float64, pl.Int64) or (value == [] and wanted == pl.List):
        return value
    raise AuditError(f"{where}: found {value!r}; write it as {'messages' if wanted == _MESSAGES else wanted}, as before")


def _read_as(layout: Columns) -> dict[str, pl.DataType]:
    """Rewards that begin with whole numbers may go on with others; a target may be anything, and is read as text."""
    floats = {*layout.columns["reward"], *(set(layout.types) - {name for names in layout.columns.values() for name in names})}
    types = {name: pl.Float64() if name in floats and kind.is_numeric() else kind for name, kind in layout.types.items()}
    return types | dict.fromkeys(_free(layout), pl.String())


def _free(layout: Columns) -> set[str]:
    """Columns that are targets and nothing else."""
    roles = {name for role, names in layout.columns.items() if role != "target" for name in names}
    return set(layout.columns.get("target", ())) - roles


def _filled(file: Iterable[bytes], before: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, numbered from `before` + 1."""
    return ((number, line) for number, line in enumerate(file, before + 1) if line.strip())


def _type(value: Any) -> pl.DataType:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return pl.Float64()
    if isinstance(value, list):
        if all(type(token) is int for token in value):
            return _TOKENS if value else pl.Null()
        if all(_is_message(one) for one in value):
            return _MESSAGES
    return _SIMPLE.get(type(value), pl.Unknown())


def _is_message(value: Any) -> bool:
    """Text, parts of text and other things, or nothing but a tool's call."""
    return (
        isinstance(value, dict)
        and ("role" in value or "content" in value)
        and isinstance(value.get("content"), (str, list, type(None)))
    )


def _message(value: dict[str, Any], where: str) -> dict[str, str | None]:
    content = value.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return {"content": "\n".join(text for text in texts if isinstance(text, str)), "whole": _as_text(value, where)}


def _as_text(value: Any, where: str) -> str | None:
    """Text as it is, anything else as JSON."""
    try:
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise AuditError(f"{where}: nested too deeply ({error}); write it flat") from error
