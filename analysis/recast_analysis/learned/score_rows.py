"""Rows of a score file: JSON lines, a JSON array of objects, parquet or CSV, told by content and not by name."""

from collections.abc import Iterable, Iterator
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

from recast_analysis.learned.learned_error import LearnedError
from recast_sim.bounded import open_ordinary, read_json_file
from recast_sim.runs.table_files import (
    MAGIC,
    check_width,
    csv_header,
    csv_rows,
    file_faults,
    file_start,
    json_row,
    next_line,
    scan_parquet,
)

SAMPLE = 1000  # rows whose keys stand for those of all
MOST = 10_000_000  # rows of a file
_SLICE = 1 << 14  # rows of a parquet file that are decoded at once
Row = tuple[str, dict[str, Any]]  # its place in words ("line 7"), and its values


def score_columns(path: Path) -> list[str]:
    """The columns of a score file: those of its header, or the keys of its first rows.

    Raises:
        LearnedError: no ordinary, readable file of one of the formats, or one without rows.
    """
    form = _form(path)
    if form == "csv":
        return csv_header(path, LearnedError)
    if form == "parquet":
        frame = scan_parquet(path, LearnedError)
        with file_faults(path, LearnedError):
            return list(frame.collect_schema())
    found: dict[str, None] = {}
    for _, row in islice(score_rows(path, ()), SAMPLE):
        found |= dict.fromkeys(row)
    if not found:
        raise LearnedError(f"{path}: holds no rows; write one object a prompt")
    return list(found)


def score_rows(path: Path, columns: Iterable[str]) -> Iterator[Row]:
    """The rows, with the named columns where the format lets others unread. A cell of CSV is text, an empty one None.

    Raises:
        LearnedError: a row that cannot be read, or more than 10 million of them.
    """
    form = _form(path)
    rows = {"csv": _of_csv, "json": _of_array, "jsonl": _of_lines}
    found = _of_parquet(path, list(dict.fromkeys(columns))) if form == "parquet" else rows[form](path)
    for number, row in enumerate(found):
        if number >= MOST:
            raise LearnedError(f"{path}: has over {MOST:,} rows, the most that is read; take a sample of the prompts")
        yield row


def _form(path: Path) -> str:
    start = file_start(path, LearnedError)
    if start.startswith(MAGIC):
        return "parquet"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if text.startswith(b"[") else "jsonl" if text.startswith(b"{") else "csv"


def _of_lines(path: Path) -> Iterator[Row]:
    with open_ordinary(path, LearnedError) as file:
        lines = (next_line(file, path, number, LearnedError) for number in count(1))
        for number, line in enumerate(takewhile(bool, lines), 1):
            if line.strip():
                yield f"line {number}", json_row(path, number, line, LearnedError)


def _of_array(path: Path) -> Iterator[Row]:
    found = read_json_file(path, LearnedError)
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        if not isinstance(row, dict):
            raise LearnedError(f"{path}: object {number}: found {str(row)[:40]!r}; write one object a prompt")
        yield f"object {number}", row


def _of_parquet(path: Path, columns: list[str]) -> Iterator[Row]:
    frame = scan_parquet(path, LearnedError).select(*columns)
    start = 0
    while True:
        with file_faults(path, LearnedError):
            part = frame.slice(start, _SLICE).collect()
        if part.is_empty():
            return
        yield from ((f"row {start + at}", row) for at, row in enumerate(part.iter_rows(named=True)))
        start += part.height


def _of_csv(path: Path) -> Iterator[Row]:
    header = csv_header(path, LearnedError)
    rows = ((line, cells) for line, cells in csv_rows(path, LearnedError) if cells)
    next(rows, None)
    for line, cells in rows:
        check_width(path, line, cells, header, LearnedError)
        yield f"line {line}", {name: cell or None for name, cell in zip(header, cells, strict=True)}
