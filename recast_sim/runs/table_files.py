"""Text, CSV and parquet files that others wrote: every fault becomes one error that names file, line or row, and the fix.

Each function takes the class of that error, a ValueError of the caller's. Compressed text (.xz, .gz) is unpacked. A file that
is cut off inside its last cell cannot be told from a whole one.
"""

import csv
import gzip
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

MAGIC = b"PAR1"  # a parquet file begins and ends with it
_OPENERS = {".xz": lzma.open, ".gz": gzip.open}
_CELL = 1 << 27  # characters that a cell may have
_UNREADABLE = (PolarsError, PanicException, OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError)


@contextmanager
def file_faults(path: Path, error: type[ValueError]) -> Iterator[None]:
    """Turn what polars and the file system raise at a damaged file into `error`; polars' Rust panics are no Exceptions."""
    try:
        yield
    except _UNREADABLE as fault:
        first = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise error(f"{path}: cannot be read ({first}); is it damaged or cut off? fetch it again") from fault


def is_parquet(path: Path) -> bool:
    """Whether a file begins as parquet does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def scan_parquet(path: Path, error: type[ValueError]) -> pl.LazyFrame:
    """A parquet file, not yet read: collect it in `file_faults`.

    Raises `error` for a file that is cut off, damaged or no parquet, or has no rows.
    """
    with file_faults(path, error):
        with path.open("rb") as file:
            start, size = file.read(len(MAGIC)), file.seek(0, 2)
            file.seek(max(0, size - len(MAGIC)))
            end = file.read()
        if start != MAGIC or end != MAGIC:
            found = "the file is empty" if not size else f"begins with {start!r} and ends with {end!r}"
            raise error(f"{path}: not a whole parquet file ({found}); is it cut off? fetch it again")
        frame = pl.scan_parquet(path, glob=False)
        if not frame.select(pl.len()).collect().item():
            raise error(f"{path}: row 0: missing, the file has no rows; write it again")
        return frame


def text_lines(path: Path, error: type[ValueError]) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their line ends, numbered from 1, without a byte order mark.

    Raises `error` with file and line for a file that cannot be opened or unpacked, bytes that are not UTF-8, and a NUL.
    """
    number = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, decoded(path, number, raw, error)
    except _UNREADABLE as fault:
        raise error(f"{path}: line {number + 1}: cannot be read ({fault}); is it cut off? fetch it again") from fault


def decoded(path: Path, number: int, raw: bytes, error: type[ValueError]) -> str:
    """A line as text. Raises `error` for bytes that are not UTF-8, and for a NUL."""
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as fault:
        raise error(f"{path}: line {number}: not readable as UTF-8 text ({fault}); save it as UTF-8") from fault
    if "\0" in line:
        raise error(f"{path}: line {number}: holds a NUL character; the file is damaged or no text, fetch it again")
    return line


def csv_rows(path: Path, error: type[ValueError]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, the header first, each with the number of its last line; a blank line is an empty row.

    By the standard library's strict reader: polars takes a quote that does not close for text. Raises `error` with file and
    line for what `text_lines` refuses, quotes that do not close, and a header without rows.
    """
    csv.field_size_limit(_CELL)
    rows = csv.reader((line for _, line in text_lines(path, error)), strict=True)
    filled = 0
    try:
        for cells in rows:
            filled += bool(cells)
            yield rows.line_num, cells
    except csv.Error as fault:
        raise error(f"{path}: line {rows.line_num}: not CSV ({fault}); is it cut off? write it again") from fault
    if filled == 1:
        raise error(f"{path}: line 2: missing, the file has a header and no rows; write it again")


def check_width(path: Path, line: int, cells: Sequence[str], header: Sequence[str], error: type[ValueError]) -> None:
    """Raise `error` where a row has more or fewer cells than the header, as a cut-off last row has."""
    if len(cells) != len(header):
        fault = f"column {header[len(cells)]!r} is missing" if len(cells) < len(header) else "too many cells"
        raise error(f"{path}: line {line}: {fault} in {list(cells)} (header: {list(header)}); is it cut off?")
