"""What a command shows: tables as Markdown, as wide as the terminal is, notes as lines, its figure, the next command."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from recast_analysis.reports.report import Report, Table
from recast_analysis.result_lines import smoke_words
from recast_sim.commandline import Printing
from recast_sim.printable import printable
from recast_sim.runs import RunError
from recast_sim.runs.reader import read_manifest

_WHOLE = 10_000  # columns of a file or a pipe, where nothing is wrapped
_NOTE = 20_000  # letters of a note
_LABEL = 40  # columns of the first column, which tells the rows apart, at most
_BAR = re.compile(r"(?<!\\)\|")  # between cells of Markdown
_LINE_IN_PARAGRAPH = re.compile(r"(?<=[^\n|])\n(?=[^\n#|-])")
_SHELL_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\S)+""")
_WORDS = 16  # columns to which words are wrapped at most, where a table does not fit


def finish(command: Printing, result: Any, report: Report, then: str = "") -> None:
    """Print the result as JSON on request; else its report, where run and figure lie, and the next command."""
    if command.json:
        print(json.dumps(result, allow_nan=False))
        return
    smoke = _smoke(result)
    console = terminal(command.wide)
    print_report(replace(report, parts=[smoke, *report.parts]) if smoke else report, console)
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and isinstance(result.get(key), str | float):
            print(f"{key}: {result[key]}")
    if then:
        words = " ".join(("next:", then, *(f"--plugin {name}" for name in command.plugin)))
        print(_continued(words, console.width))


def _continued(command: str, width: int) -> str:
    """A shell's command in lines that end with a backslash where it is wider than the terminal, so that it can be copied."""
    lines = [""]
    for word in _SHELL_WORD.findall(command):
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _smoke(result: Any) -> str:
    """That the run behind a result was a smoke run; nothing of any other result."""
    root = result.get("run") if isinstance(result, dict) else None
    if not isinstance(root, str):
        return ""
    try:
        manifest = read_manifest(Path(root))
    except RunError:  # a run's name in a table, or the folder of a command that keeps no manifest
        return ""
    return smoke_words(manifest["kind"], manifest["config"])


def terminal(wide: bool = False) -> Console:
    """stdout as it is: a terminal's width, or COLUMNS where that is set; a file, a pipe and `wide` take lines of any length."""
    console = Console()
    if wide or not (console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()):
        return Console(width=_WHOLE)
    return console


def print_report(report: Report, console: Console | None = None) -> None:
    """Print tables and notes in their order, on `terminal()` by default; draws nothing.

    A table that is wider than the console is wrapped where it holds words, and cut between columns into tables that repeat the
    columns that name its rows where that is not enough.
    """
    console = console or terminal()
    words = ""  # above a title, which stands apart from them; a table ends with a blank line
    for part in report.parts:
        if isinstance(part, Table):
            for table, widths in _fitting(part, console.width):
                _print_words(f"\n{table.title}" if words and table.title else table.title, console)
                console.print(_rich_table(table, widths))
                _print_words(words := table.note, console)
        else:
            _print_words(words := printable(part, _NOTE, lines=True), console)


def print_markdown(text: str) -> None:
    """A page of Markdown as it is; on a terminal its tables are as wide as that, and its lines break between words."""
    console = terminal()
    if console.width >= _WHOLE:
        print(text, end="")
        return
    for of_table, lines in groupby(_LINE_IN_PARAGRAPH.sub(" ", text).splitlines(), lambda line: line.startswith("|")):
        if of_table:
            header, _, *rows = ([cell.strip() for cell in _BAR.split(line)[1:-1]] for line in lines)
            print_report(Report({}, [Table("", header, rows, words=header)]), console)
        else:
            _print_words("\n".join(lines), console)


def _print_words(words: str, console: Console) -> None:
    if words:
        console.print(Text(words), soft_wrap=console.width >= _WHOLE)


def _fitting(table: Table, width: int) -> list[tuple[Table, list[int]]]:
    """The table in pieces that are no wider than `width`, with the width of each column."""
    columns = list(zip(*[table.header, *table.rows], strict=True))
    full = [max(map(cell_len, column)) for column in columns]
    least = [_least(column, numeric) for column, numeric in zip(columns, table.numeric, strict=True)]
    least[0] = min(full[0], _LABEL)
    words = [_longest_word(column) for column in columns]
    naming = _naming(table.rows)
    pieces = _cut(least, naming, width)
    for narrower in range(width - 1, 0, -1):  # as even as so many pieces can be: none that holds a lone last column
        even = _cut(least, naming, narrower)
        if len(even) > len(pieces):
            break
        pieces = even
    drawn = []
    for at, piece in enumerate(pieces, start=1):
        own_full, own_least, own_words = ([sizes[c] for c in piece] for sizes in (full, least, words))
        drawn.append((_piece(table, piece, at, len(pieces)), _spread(own_full, own_least, own_words, width)))
    return drawn


def _cut(least: Sequence[int], naming: int, width: int) -> list[list[int]]:
    """The columns of each piece, which begins with those that name the rows."""
    pieces = [list(range(naming))]
    for column in range(naming, len(least)):
        if _lines([least[at] for at in (*pieces[-1], column)]) > width and len(pieces[-1]) > naming:
            pieces.append(list(range(naming)))
        pieces[-1].append(column)
    return pieces


def _naming(rows: Sequence[Sequence[str]]) -> int:
    """How many of the first columns tell the rows apart; the first alone where not even three do."""
    return next((some for some in (1, 2, 3) if len({tuple(row[:some]) for row in rows}) == len(rows)), 1)


def _least(column: Sequence[str], numeric: bool) -> int:
    """The fewest letters of a line: numbers are not broken, their heading and words are."""
    if numeric:
        return max(_longest_word(column[:1]), *map(cell_len, column[1:]), 0)
    return min(_WORDS, max(map(cell_len, column)))


def _piece(table: Table, columns: Sequence[int], at: int, of: int) -> Table:
    header = [table.header[c] for c in columns]
    words = [name for name in header if name in (table.words if table.words is not None else table.header[:1])]
    title = table.title if of == 1 else f"{table.title} ({at} of {of})".strip()
    rows = [[row[c] for c in columns] for row in table.rows]
    return replace(table, title=title, header=header, rows=rows, words=words, note=table.note if at == of else "")


def _lines(widths: Sequence[int]) -> int:
    """Columns of a line of cells: each has a blank on both sides, and a bar before each and behind the last."""
    return sum(widths) + 3 * len(widths) + 1


def _spread(full: Sequence[int], least: Sequence[int], unbroken: Sequence[int], width: int) -> list[int]:
    """Widths between the least and the full ones.

    What is left over goes to columns that would break a word, then to the one whose longest cell has the most lines.
    """
    widths, left = list(least), width - _lines(least)
    while left > 0 and (wanting := [at for at, whole in enumerate(full) if widths[at] < whole]):
        breaking = [at for at in wanting if widths[at] < unbroken[at]]
        widths[min(breaking or wanting, key=lambda at: (widths[at] / full[at], at))] += 1
        left -= 1
    return widths


def _longest_word(texts: Sequence[str]) -> int:
    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def _rich_table(table: Table, widths: Sequence[int]) -> RichTable:
    """The cells go in as `Text`, so that rich reads no markup in their brackets."""
    drawn = RichTable(box=MARKDOWN)
    for name, numeric, width in zip(table.header, table.numeric, widths, strict=True):
        drawn.add_column(Text(name), justify="right" if numeric else "left", width=width, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
