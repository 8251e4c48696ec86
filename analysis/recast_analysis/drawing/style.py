"""One style for every figure: colour-blind-safe, one colour a constructor, ink that a dark page can turn, vector and PNG."""

import html
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import Formatter, FuncFormatter, LogFormatter, LogFormatterSciNotation, NullFormatter, ScalarFormatter

from recast_analysis.drawing.fingerprint import metadata
from recast_analysis.drawing.looks import look
from recast_sim.printable import printable
from recast_sim.runs import atomic_file

INK = "#1f2328"  # of text, axes and reference lines; `as_svg` makes it the page's own text colour
REGIME_COLOURS = {"all_zero": "#bbbbbb", "single_hit": "#ee9944", "multi_hit": "#4477aa", "all_hit": "#228833"}
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
_NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no metadata, so that the same run gives the same bytes
_LETTERS, _CAPTION = 300, 4000  # of a text in a figure, and of its caption
_RAISED = str.maketrans("0123456789-\u2212", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻")


@dataclass(frozen=True)
class Drawn:
    """A figure, its file's name, its title, and the caption under it: seeds, interval, what was left out."""

    name: str
    title: str
    figure: Figure
    caption: str


def apply_style() -> None:
    """Set the shared look; call it before making a figure."""
    ink = dict.fromkeys(_INKED, INK)
    rc = {
        "axes.grid": True,
        "axes.titlelocation": "left",  # the right is for the good direction
        "grid.color": INK,
        "grid.alpha": 0.12,
        "legend.frameon": False,
        "patch.edgecolor": "none",
        "svg.hashsalt": "recast",
        "text.parse_math": False,  # names come from anywhere: a dollar is a dollar
        **ink,
    }
    sns.set_theme(context="paper", style="ticks", font_scale=1.05, rc=rc)


def colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each method (`look`), the same in every figure."""
    return {name: look(name).colour for name in names}


def save_figure(drawn: Drawn, folder: Path) -> Path:
    """Write a figure with its caption as PNG, and as PDF beside it, and close it; returns the PNG's path.

    The PNG holds a hash of what it shows (`fingerprint`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(drawn.figure)
    width = int(12 * drawn.figure.get_figwidth())  # letters of a caption's line
    caption = textwrap.fill(printable(drawn.caption, _CAPTION), width)
    drawn.figure.text(0.01, -0.01, caption, fontsize=8, verticalalignment="top")
    path = folder / f"{drawn.name}.png"
    for kind in ("png", "pdf"):
        with atomic_file(path.with_suffix(f".{kind}")) as temporary:
            kept = metadata(drawn.figure) if kind == "png" else None
            drawn.figure.savefig(temporary, format=kind, dpi=150, bbox_inches="tight", metadata=kept)
    plt.close(drawn.figure)
    return path


def as_svg(drawn: Drawn, prefix: str) -> str:
    """An `<svg>` element for a page, without its caption, its title and caption as its label; closes the figure.

    Its ink is the page's text colour, its ground is transparent, and its ids begin with `prefix`, so that several figures can
    stand on one page.
    """
    text = io.StringIO()
    _tidy(drawn.figure)
    drawn.figure.savefig(text, format="svg", bbox_inches="tight", transparent=True, metadata=_NOTHING)
    plt.close(drawn.figure)
    found = text.getvalue()
    svg = found[found.index("<svg") + len("<svg") :].replace(INK, "currentColor")
    label = html.escape(printable(f"{drawn.title}. {drawn.caption}", _CAPTION))
    return f'<svg role="img" aria-label="{label}"' + re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)


class PlainPowers(LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain letters, 10⁻³: `apply_style` turns off what the default ones are written in."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        words = super().__call__(x, pos).strip("$").removeprefix(r"\mathdefault{").removesuffix("}")
        return re.sub(r"\^\{([^}]*)\}", lambda power: power[1].translate(_RAISED), words).replace(r"\times", "\u00d7")


def plain_powers(axis: Axis) -> None:
    """Label a logarithmic axis with `PlainPowers`, before its figure is laid out; other axes stay as they are."""
    for found, place in _formatters(axis):
        if isinstance(found, LogFormatterSciNotation):
            place(PlainPowers(labelOnlyBase=found.labelOnlyBase))


def _tidy(figure: Figure) -> None:
    """Spell out and cut every text of a figure, so that no name breaks its drawing."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(printable(text.get_text(), _LETTERS, lines=True))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        plain_powers(axis)
        for found, place in _formatters(axis):
            if not isinstance(found, LogFormatter | NullFormatter | ScalarFormatter):  # a name stands at a tick
                place(FuncFormatter(partial(_named_tick, found)))


def _named_tick(found: Formatter, value: float, at: int | None) -> str:
    return printable(found(value, at), _LETTERS, lines=True)


def _formatters(axis: Axis) -> list[tuple[Formatter, Callable[[Formatter], None]]]:
    return [
        (axis.get_major_formatter(), axis.set_major_formatter),
        (axis.get_minor_formatter(), axis.set_minor_formatter),
    ]
