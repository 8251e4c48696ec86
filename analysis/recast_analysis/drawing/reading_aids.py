"""What helps to read a figure: few lines in colour, the good direction, one legend outside the panels."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#b5b5b5"  # of lines that are there to be compared with, not to be told apart
_MOST = 5  # lines of a panel in colour
_FIRST = ("grpo", "recast", "sft", "repair_only", "boundary_only", "max_rl", "tempered_anchor", "prize")
_BETTER = {"up": "better \u2191", "down": "better \u2193", "right": "better \u2192", "left": "\u2190 better"}


def foremost(names: Iterable[str], most: int = _MOST) -> list[str]:
    """The methods of a panel that stand in colour, in their own order: all of a few, else those that are asked about most."""
    names = list(names)
    if len(names) <= most:
        return names
    rank = {name: _FIRST.index(name) if name in _FIRST else len(_FIRST) + at for at, name in enumerate(names)}
    return [name for name in names if name in sorted(names, key=rank.__getitem__)[:most]]


def others(names: Sequence[str], shown: Sequence[str]) -> str:
    """The sentence of a caption on what is drawn in grey; nothing where nothing is."""
    grey = [name for name in names if name not in shown]
    return f" Grey: {', '.join(grey)}." if grey else ""


def better(axes: Axes, towards: Literal["up", "down", "left", "right"]) -> None:
    """Say at a panel's upper right which direction is the good one."""
    axes.set_title(_BETTER[towards], loc="right", fontsize=8, color="#666666")


def legend_above(figure: Figure, axes: Iterable[Axes], columns: int = 5) -> None:
    """One legend of all panels, each label once, above them; the figure is laid out with `layout="constrained"`."""
    handles: dict[str, Any] = {}
    for one in axes:
        handles |= {label: line for line, label in zip(*one.get_legend_handles_labels(), strict=True) if label not in handles}
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns, fontsize=9)
