"""A report on the terminal: its tables as Markdown, its notes as lines."""

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from recast_analysis.reports.report import Report, Table
from recast_sim.printable import printable

_WIDTH = 360  # of the widest table; a narrower terminal wraps its lines, a file keeps them whole
_NOTE = 20_000  # letters of a note


def print_report(report: Report, console: Console | None = None) -> None:
    """Print tables and notes in their order, on stdout by default; draws nothing."""
    console = console or Console(width=max(_WIDTH, Console().width))
    for part in report.parts:
        if isinstance(part, Table):
            console.print(_rich_table(part))
        else:
            console.print(Text(printable(part, _NOTE, lines=True)), soft_wrap=True)


def _rich_table(table: Table) -> RichTable:
    """The cells go in as `Text`, so that rich reads no markup in their brackets."""
    title = Text(table.title, "table.title") if table.title else None
    note = Text(table.note, "table.caption") if table.note else None
    drawn = RichTable(box=MARKDOWN, title=title, title_justify="left", caption=note, caption_justify="left")
    for name, numeric in zip(table.header, table.numeric, strict=True):
        drawn.add_column(Text(name), justify="right" if numeric else "left")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
