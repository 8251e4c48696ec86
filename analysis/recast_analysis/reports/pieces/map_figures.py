"""The map as heat maps: a line a cell, and a square for each crossed pair of axes."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.drawing.words import metric_words
from recast_analysis.measures.metric_names import IN_NATS

_LIMIT = 30.0  # of the colour scale, percent
_CELL = (0.95, 0.27)  # inches


def by_cell(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of each cell, by its words."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        crossed = f", {row['y']} {row['y_label']}" if row["y"] else ""
        cells.setdefault(f"{row['x']} {row['x_label']}{crossed}", []).append(row)
    return cells


def map_figures(summary: Mapping[str, Any]) -> list[Drawn]:
    """`slices` (a line a point of each axis) and one for each crossed pair of axes."""
    apply_style()
    rows = [row for row in summary["cells"] if row["metric"] not in IN_NATS and not row["metric"].endswith("_levels")]
    slices = [row for row in rows if not row["y"]]
    crossed = list(dict.fromkeys((row["x"], row["y"]) for row in rows if row["y"]))
    words = (
        "Change of the final score in percent, first over second: blue the first is better, red worse, grey not run; "
        f"brackets: not told from no change. Each cell: {summary['seeds']} worlds; rates tuned for each metric and setting on "
        "other worlds."
    )
    drawn = [Drawn("slices", "The map: slices through the base setting", _slices(slices), words)] if slices else []
    for x, y in crossed:
        grid = [row for row in rows if (row["x"], row["y"]) == (x, y)]
        drawn.append(Drawn(f"grid-{x}-{y}".replace(" ", "-"), f"The map: {x} and {y}", _grid(grid), words))
    return drawn


def _slices(rows: list[dict[str, Any]]) -> Figure:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    pairs = list(dict.fromkeys((row["method"], row["against"]) for row in rows))
    names = list(by_cell(rows))
    size = (2.4 + _CELL[0] * len(pairs), (1.6 + _CELL[1] * len(names)) * len(metrics))
    figure, axes = plt.subplots(len(metrics), 1, figsize=size, squeeze=False)  # side by side no page could show its letters
    for axis, metric in zip(axes[:, 0], metrics, strict=True):
        cells = by_cell([row for row in rows if row["metric"] == metric])
        _heat(axis, [[_at(cells[name], pair) for pair in pairs] for name in names])
        axis.set_xticks(
            range(len(pairs)), [f"{mine}\nvs {other}" for mine, other in pairs], rotation=40, ha="right", fontsize=7
        )
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(metric_words(metric), fontsize=9)
        axes_of = [cell[0]["x"] for cell in cells.values()]
        for line in (i for i in range(1, len(axes_of)) if axes_of[i] != axes_of[i - 1]):
            axis.axhline(line - 0.5, color=INK, linewidth=1)
    figure.tight_layout()
    return figure


def _grid(rows: list[dict[str, Any]]) -> Figure:
    pairs = list(dict.fromkeys((row["method"], row["against"]) for row in rows))
    metrics, xs, ys = (list(dict.fromkeys(row[key] for row in rows)) for key in ("metric", "x_label", "y_label"))
    shape = (len(pairs), len(metrics))
    figure, axes = plt.subplots(*shape, figsize=(1.2 + 3.4 * shape[1], 1.2 + 2.4 * shape[0]), squeeze=False)
    for axis, (pair, metric) in zip(axes.flat, ((p, m) for p in pairs for m in metrics), strict=True):
        at = {(row["y_label"], row["x_label"]): [row] for row in rows if row["metric"] == metric and _at([row], pair)}
        _heat(axis, [[_at(at.get((y, x), []), pair) for x in xs] for y in ys])
        axis.set_xticks(range(len(xs)), xs, fontsize=7)
        axis.set_yticks(range(len(ys)), ys, fontsize=7)
        axis.set(xlabel=rows[0]["x"], ylabel=rows[0]["y"])
        axis.set_title(f"{metric_words(metric)}: {pair[0]} vs {pair[1]}", fontsize=9)
    figure.tight_layout()
    return figure


def _at(rows: list[dict[str, Any]], pair: tuple[str, str]) -> dict[str, Any] | None:
    return next((row for row in rows if (row["method"], row["against"]) == pair), None)


def _heat(axis: Axes, table: list[list[dict[str, Any] | None]]) -> None:
    values = np.array([[_value(row) for row in line] for line in table])
    axis.imshow(values, cmap="RdBu", vmin=-_LIMIT, vmax=_LIMIT, aspect="auto")
    for i, line in enumerate(table):
        for j, row in enumerate(line):
            if row is not None:
                text = "-" if np.isnan(values[i, j]) else f"{values[i, j]:+.0f}"
                colour = "white" if abs(values[i, j]) > 0.7 * _LIMIT else "black"
                text = text if row["significant"] else f"({text})"
                axis.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    axis.grid(False)
    axis.set_facecolor("0.9")


def _value(row: dict[str, Any] | None) -> float:
    return 100 * row["gain"]["value"] if row is not None and row["gain"] else np.nan
