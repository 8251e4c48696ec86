"""Text, CSV and parquet files, others' and our own: every fault becomes one error that names file, line or row, and the fix.

Each function takes the class of that error, a ValueError of the caller's. A path is a literal path, whatever its letters mean
to a shell. Compressed text (.xz, .gz) is unpacked. A file that is cut off inside its last cell cannot be told from a whole one.
"""

import csv
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import polars as pl
from polars.exceptions import PanicException, PolarsError

from recast_sim.bounded import MEGABYTE, each_key_once, open_ordinary

MAGIC = b"PAR1"  # a parquet file begins and ends with it
NO_IDS = frozenset(("nan", "NaN", "null", "NULL", "None", "NA", "<NA>", "NaT"))  # as tools write an id that is missing
_ROWS = 100_000_000  # of a table that is read whole
_LINE = 32 * MEGABYTE  # of a line of text, and so of a cell
_TEXT = 16 * 1024 * MEGABYTE  # of a text file, unpacked
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks", ":": "colons"}
_SURE = ("\t", ";", "|")
_START = 1 << 16  # bytes or letters of a file's start that are looked at
_HALF = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNREADABLE = (PolarsError, PanicException, OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError)


_PACKED = {
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
}
_WIDE = {  # the longer marks first: UTF-32's begins as UTF-16's does
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@contextmanager
def file_faults(path: Path, error: type[ValueError]) -> Iterator[None]:
    """Turn what polars and the file system raise at a damaged file into `error`; polars' Rust panics are no Exceptions."""
    try:
        yield
    except _UNREADABLE as fault:
        raise error(f"{path}: cannot be read ({_first(fault)}); is it damaged or cut off? fetch it again") from fault


def _first(fault: BaseException) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]


def begins_as_parquet(path: Path, error: type[ValueError]) -> bool:
    """Whether a file begins as parquet does. Raises `error` for what is no ordinary file or cannot be opened."""
    try:
        with open_ordinary(path, error) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror}); give a file or folder that is there") from fault


def scan_parquet(path: Path, error: type[ValueError]) -> pl.LazyFrame:
    """A parquet file, not yet read: collect it in `file_faults`.

    Raises `error` for a file that is cut off, damaged or no parquet, or has no rows.
    """
    with file_faults(path, error):
        with open_ordinary(path, error) as file:
            start, size = file.read(len(MAGIC)), file.seek(0, 2)
            file.seek(max(0, size - len(MAGIC)))
            end = file.read()
        if start != MAGIC or end != MAGIC:
            found = "the file is empty" if not size else f"begins with {start!r} and ends with {end!r}"
            raise error(f"{path}: not a whole parquet file ({found}); is it cut off? fetch it again")
        frame = literal_scan(path)
        if not frame.select(pl.len()).collect().item():
            raise error(f"{path}: row 0: missing, the file has no rows; write it again")
        return frame


def literal_scan(path: Path) -> pl.LazyFrame:
    """A parquet file of exactly this path: polars by itself takes `[`, `*` and `?` for patterns and `~` for the home folder."""
    return pl.scan_parquet(path.absolute(), glob=False, hive_partitioning=False)


def read_table(path: Path, error: type[ValueError]) -> pl.DataFrame:
    """A whole parquet file of a run; it may have no rows.

    Raises `error` where it is missing, damaged, no parquet or no file at all, or claims more than 100 million rows.
    """
    try:
        with open_ordinary(path, error):
            frame = literal_scan(path)
            if (rows := frame.select(pl.len()).collect().item()) > _ROWS:
                raise error(f"{path}: has {rows} rows, over {_ROWS}; no run writes that")
            return frame.collect()
    except OSError as fault:
        raise error(f"{path}: not readable ({fault.strerror or fault})") from fault
    except _UNREADABLE as fault:
        raise error(f"{path}: not a readable parquet file: {_first(fault)}") from fault


def text_lines(path: Path, error: type[ValueError]) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their line ends, numbered from 1, without a byte order mark.

    Raises `error` with file and line for a file that cannot be opened or unpacked, bytes that are not UTF-8, a NUL, a line of
    over 32 MB, and unpacked text of over 16 GB.
    """
    number, left = 0, _TEXT
    try:
        with open_ordinary(path, error) as packed, _unpacked(path, packed) as file:
            while raw := next_line(file, path, number + 1, error):
                number, left = number + 1, left - len(raw)
                if number == 1 and (found := no_utf8(raw)):
                    raise error(f"{path}: line 1: {found}")
                if left < 0:
                    most = f"{_TEXT // MEGABYTE} MB, the most that is read"
                    raise error(f"{path}: line {number}: the text, unpacked, has over {most}; cut it")
                yield number, decoded(path, number, raw, error)
    except _UNREADABLE as fault:
        raise error(f"{path}: line {number + 1}: cannot be read ({fault}); is it cut off? fetch it again") from fault


def no_utf8(start: bytes) -> str | None:
    """What a file that begins so is and what to do, where it is packed or of wide characters; None for any other."""
    packed = next((words for magic, words in _PACKED.items() if start.startswith(magic)), None)
    wide = next((name for mark, name in _WIDE.items() if start.startswith(mark)), None) or _of_zeros(start[:64])
    return packed or (f"text in {wide}; save it as UTF-8" if wide else None)


def _of_zeros(sample: bytes) -> str | None:
    """The encoding of two or four bytes a character whose plain letters have these zeros."""
    zeros = [set(sample[place::4]) == {0} for place in range(4)]
    if len(sample) < 8 or sum(zeros) == 4:
        return None
    return {3: "UTF-32", 2: "UTF-16"}.get(sum(zeros)) if zeros[0] == zeros[2] or sum(zeros) == 3 else None


def next_line(file: IO[bytes], path: Path, number: int, error: type[ValueError]) -> bytes:
    """The line of that number with its end, empty behind the last. Raises `error` for one of over 32 MB."""
    if len(raw := file.readline(_LINE + 1)) > _LINE:
        raise error(f"{path}: line {number}: the line has over {_LINE // MEGABYTE} MB, the most that is read; cut it")
    return raw


def _unpacked(path: Path, file: BinaryIO) -> IO[bytes]:
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix)
    return opener(file, "rb") if opener else file


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
    csv.field_size_limit(_LINE)
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


def file_start(path: Path, error: type[ValueError]) -> bytes:
    """The first bytes of a file of text or parquet.

    Raises `error` for no ordinary file, one that cannot be opened, an empty or compressed one, wide characters, and a NUL in
    what is no parquet.
    """
    try:
        with open_ordinary(path, error) as file:
            start = file.read(_START)
    except OSError as fault:
        raise error(f"{path}: cannot be read: {fault.strerror}; fix the path or its rights") from fault
    if not start:
        raise error(f"{path}: the file is empty; fetch it again")
    if start.startswith(MAGIC):
        return start
    if found := no_utf8(start):
        raise error(f"{path}: {found}")
    if b"\0" in start:
        line = start[: start.index(0)].count(10) + 1
        raise error(f"{path}: line {line}: holds a NUL; no text, no parquet, fetch it again")
    return start


def csv_header(path: Path, error: type[ValueError]) -> list[str]:
    """Columns of a CSV file. Raises `error` for a repeated one, and for cells that are not parted by commas."""
    _check_separator(path, error)
    header = next((cells for _, cells in csv_rows(path, error) if cells), [])
    if twice := [name for name in header if header.count(name) > 1]:
        raise error(f"{path}: line 1: column {twice[0]!r} is there twice in {header}; name each once")
    return header


def _check_separator(path: Path, error: type[ValueError]) -> None:
    """By the header alone, since the cells below it may hold any text; blanks and colons may stand in names of columns."""
    line, header = next(((line, text.strip()) for line, text in text_lines(path, error) if text.strip()), (1, ""))
    header = next(iter(header.splitlines()), "")[:_START]
    columns = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in (",", *_SEPARATORS)}
    for mark, words in _SEPARATORS.items():
        if columns[mark] > columns[","] and (mark in _SURE or columns[","] == 1):
            found = f"{header[:60]!r} is separated by {words}"
            raise error(f"{path}: line {line}: {found}; write commas between the columns (CSV)")


def holds_half_a_letter(text: bytes) -> bool:
    """Whether JSON may hold half a surrogate pair, which is no character and cannot be written as UTF-8."""
    return _HALF.search(text) is not None


def json_row(path: Path, number: int, line: bytes, error: type[ValueError]) -> dict[str, Any]:
    """The object of one line of JSON; halves of surrogate pairs become U+FFFD.

    Raises `error` for what is no JSON object, and for a key that is there twice. NaN and infinities are read.
    """
    text = decoded(path, number, line, error)
    try:
        row = json.loads(text, object_pairs_hook=each_key_once)
        row = _whole_text(row) if holds_half_a_letter(line) else row
    except (ValueError, RecursionError) as fault:
        raise error(f"{path}: line {number}: not JSON ({fault}); is it cut off? write the line again") from fault
    if not isinstance(row, dict):
        raise error(f"{path}: line {number}: found {str(row)[:40]}, no JSON object; write one object a line")
    return row


def _whole_text(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole_text(one) for one in value]
    return {_whole_text(key): _whole_text(one) for key, one in value.items()} if isinstance(value, dict) else value
