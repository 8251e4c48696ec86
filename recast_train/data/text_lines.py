"""Text files line by line in bounded memory, plain or compressed, and the rows of CSV files, with errors that name the line."""

import csv
import gzip
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from recast_train.data.data_error import DataError

OPENERS = {".xz": lzma.open, ".gz": gzip.open}


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file (.xz and .gz are unpacked), numbered from 1, without their line ends or a byte order mark.

    Raises DataError with file and line for a file that cannot be opened, bytes that are not UTF-8, a NUL, and a compressed
    file that is cut off or damaged.
    """
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, _decoded(path, number, raw)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: line {number + 1}: cannot be read ({error}); is it cut off? fetch it again") from error


def csv_rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The `wanted` cells of each row of a CSV file, with the number of the row's last line; the first line is the header.

    Raises DataError with file and line for an empty file, no rows, a missing or repeated column, a row with more or fewer
    cells than the header (as a cut-off last row has), and quotes that do not close.
    """
    rows = csv.reader((f"{line}\n" for _, line in numbered_lines(path)), strict=True)
    try:
        header = next(rows, [])
        places = [_place(path, header, name) for name in wanted]
        for row in rows:
            if len(row) != len(header):
                fault = f"column {header[len(row)]!r} is missing" if len(row) < len(header) else "too many cells"
                raise DataError(f"{path}: line {rows.line_num}: {fault} in {row} (header: {header}); is it cut off?")
            yield rows.line_num, [row[place] for place in places]
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: not CSV ({error}); is it cut off? write it again") from error
    if rows.line_num <= 1:
        raise DataError(f"{path}: line 2: missing, the file has a header and no rows; write it again")


def _place(path: Path, header: list[str], name: str) -> int:
    if not header:
        raise DataError(f"{path}: line 1: the file is empty; fetch it again")
    if header.count(name) != 1:
        raise DataError(f"{path}: line 1: column {name!r} is there {header.count(name)} times in {header}; name it so once")
    return header.index(name)


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number}: not readable as UTF-8 text ({error}); save it as UTF-8") from error
    if "\0" in line:
        raise DataError(f"{path}: line {number}: holds a NUL character; the file is damaged or no text, fetch it again")
    return line.removesuffix("\n").removesuffix("\r")
