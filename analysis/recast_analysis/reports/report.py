"""What a report is: tables and notes in reading order, the numbers behind them, and figures that are drawn when asked for.

It knows neither terminal nor page: `recast_analysis.terminal` prints it, `page` shows it, `figures` draws it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recast_analysis.drawing.style import Drawn, save_figure
from recast_sim.printable import printable

_NOTE = 4000  # letters of a note


@dataclass(frozen=True)
class Table:
    """A table as text; names come from anywhere, so what a terminal would obey is spelled out and what is endless is cut.

    Attributes:
        header: a name for each column.
        rows: the cells, as many in each row as there are columns.
        words: names of the columns that hold words, aligned left; default the first column alone. The others hold numbers.
        note: a sentence below the table.

    Raises:
        ValueError: a row of another length than the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        shown = {
            "title": printable(self.title),
            "header": [printable(name) for name in self.header],
            "rows": [[printable(cell) for cell in row] for row in self.rows],
            "words": self.words and [printable(name) for name in self.words],
            "note": printable(self.note, _NOTE),
        }
        for name, value in shown.items():
            object.__setattr__(self, name, value)
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"rows: {list(row)} of {self.title!r} has {len(row)} cells for {len(self.header)} columns")

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, aligned right."""
        words = self.header[:1] if self.words is None else self.words
        return [name not in words for name in self.header]


@dataclass(frozen=True)
class Report:
    """All that a command says of a run.

    Attributes:
        summary: every figure, JSON-ready.
        parts: tables and notes in reading order.
        figures: draws the figures; not called where tables alone are wanted.
    """

    summary: dict[str, Any]
    parts: Sequence[Table | str]
    figures: Callable[[], Sequence[Drawn]] = tuple

    def save_figures(self, folder: Path) -> list[str]:
        """Draw all figures and write them below a folder; returns the paths of the PNGs."""
        return [str(save_figure(drawn, folder)) for drawn in self.figures()]
