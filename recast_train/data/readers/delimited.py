"""Tables in text: what parts their cells (tabs, commas, semicolons, bars, `::`, blanks), their header, and their rows."""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recast_sim.runs.table_files import check_width, text_lines
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import is_header

SAMPLE = 200  # lines by which a table is judged
_SEPARATORS = ("\t", "::", ",", ";", "|", " ")
_NAMES = {"\t": "tabs", "::": "'::'", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
_PLAIN = ("\t", "::", " ")  # no cell holds the separator, and a quote inside a cell is a character
_TYPED = re.compile(r"([^:]+):(token|float|token_seq|float_seq)")
_CELL = 1 << 27  # characters that a cell may have


@dataclass(frozen=True)
class Layout:
    """How a text is parted into cells.

    Attributes:
        separator: of _SEPARATORS; " " is any run of blanks.
        header: cells of line 1, whether it is a header or not.
        rows: cells of the next lines, SAMPLE at most.
    """

    separator: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def parted_by(self) -> str:
        return _NAMES[self.separator]

    @property
    def types(self) -> tuple[str, ...]:
        """RecBole's types of the columns, empty where line 1 is no header of RecBole's."""
        found = [_TYPED.fullmatch(cell) for cell in self.header]
        return tuple(match[2] for match in found if match) if all(found) else ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, without RecBole's types."""
        return tuple(cell.rpartition(":")[0] for cell in self.header) if self.types else self.header

    @property
    def even(self) -> bool:
        """All rows have as many cells as line 1."""
        return all(len(row) == len(self.header) for row in self.rows)


def layout_of(path: Path) -> Layout:
    """The layout of a text by its first lines. Raises DataError for an empty file, and what `text_lines` refuses."""
    lines = [line for _, line in itertools.islice(text_lines(path, DataError), SAMPLE + 1)]
    if not "".join(lines).strip():
        raise DataError(f"{path}: line 1: the file is empty; fetch it again")
    found = [Layout(separator, *_sample(lines, separator)) for separator in _SEPARATORS]
    several = [layout for layout in found if len(layout.header) > 1]
    named = [layout for layout in several if layout.types or is_header(layout.header)]
    even = [layout for layout in several if layout.even]
    return next(iter(named or even or several or found))


def delimited_rows(path: Path, layout: Layout, header: bool) -> Iterator[tuple[int, Sequence[str]]]:
    """Cells of each row with its line, blank lines at the end left out; `header` skips line 1.

    Raises DataError with file and line for what `text_lines` refuses, quotes that do not close, a row of another width than
    line 1, a blank line between rows, and no rows.
    """
    blank, number = 0, 0
    for number, cells in _parted(path, text_lines(path, DataError), layout.separator):
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            blank = blank or number
            continue
        if blank:
            raise DataError(f"{path}: line {blank}: the line is empty, and more follow; drop it")
        if number > 1 or not header:
            check_width(path, number, cells, layout.header, DataError)
            yield number, cells
    if header and (number == 1 or blank == 2):
        raise DataError(f"{path}: line 2: missing, the file has a header and no rows; write it again")


def _sample(lines: Sequence[str], separator: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    try:
        rows = [tuple(cells) for _, cells in _parted(Path(), enumerate(lines, 1), separator)]
    except DataError:  # a quote that the sample cuts, or that is none
        rows = [tuple(line.rstrip("\r\n").split(separator)) for line in lines]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    return rows[0], tuple(rows[1:])


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else cell


def _parted(path: Path, lines: Iterator[tuple[int, str]], separator: str) -> Iterator[tuple[int, list[str]]]:
    if separator in _PLAIN:
        for number, line in lines:
            cells = line.split() if separator == " " else line.rstrip("\r\n").split(separator)
            yield number, [_unquoted(cell) for cell in cells] if '"' in line else cells
        return
    csv.field_size_limit(_CELL)
    rows = csv.reader((line for _, line in lines), delimiter=separator, strict=True)
    try:
        for cells in rows:
            yield rows.line_num, cells
    except csv.Error as fault:
        raise DataError(f"{path}: line {rows.line_num}: not parted by {_NAMES[separator]} ({fault}); is it cut off?") from fault
