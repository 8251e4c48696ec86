"""Report of `recast-sim map` from its folder alone.

A cell's figure is log10 of the matched budget ratio: what the mapped method spends, over what the other spends, to the lower of
their two final scores. Below 0 the mapped method is cheaper.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing.style import INK, Drawn, apply_style
from analysis.drawing.words import interval_text
from analysis.measures.budget_curves import gain, matched_log_ratio
from analysis.measures.comparison import Comparison
from analysis.measures.statistics import false_discovery, mean_interval
from analysis.reports.report import Report, Table
from recast_sim.runs import read_run

_LIMIT = 1.0  # of the colour scale
_DISCOVERIES = 0.05  # share of false ones among the cells that are told from 0
_NOTE = (
    "log10 budget ratio, {method} over the other: of steps to the lower of the two final scores; -0.3 is half the budget, +0.3 "
    "twice, -2 or +2 where only one of the two gains. Mean over {seeds} worlds, 95 % t interval; (ns): not told from 0 "
    "at a false discovery rate of 5 % over all cells; (-): neither method ends above its base policy, so there is no budget to "
    "compare; equal: the same scores. Rates are tuned for each metric, method and cell on other worlds."
)


def report(root: Path) -> Report:
    """A table for each metric with a row a cell, and heat maps.

    Raises:
        RunError: the sweep is not finished.
    """
    summary = _summary(root)
    return Report(summary, _shown(summary), lambda: _figures(summary))


def _summary(root: Path) -> dict[str, Any]:
    """One row for each cell, metric and opponent. Cells whose setting could not be calibrated are listed as `missing`."""
    found, config = Comparison.read(root / "methods"), read_run(root).manifest["config"]
    cells = pl.read_parquet(root / "cells.parquet").to_dicts()
    rows: list[dict[str, Any]] = [
        {**cell, **_world(found, cell["setting"]), "metric": metric, "against": other}
        | _compare(found, cell["setting"], config["method"], other, metric)
        for cell in cells
        if cell["setting"] in found.settings
        for metric in found.metrics
        for other in config["against"]
    ]
    for row, q in zip(rows, false_discovery([row["log10_budget_ratio"]["p"] for row in rows]), strict=True):
        row |= {"q": q, "significant": q is not None and q < _DISCOVERIES}
    missing = sorted({cell["setting"] for cell in cells} - set(found.settings))
    seeds = config["protocol"]["seeds"]
    whole = [
        {"metric": m, "against": o, **_pooled(rows, found, config["method"], o, m)}
        for m in found.metrics
        for o in config["against"]
    ]
    return {"method": config["method"], "seeds": seeds, "pooled": whole, "cells": rows, "missing": missing, "run": str(root)}


def _shown(summary: dict[str, Any]) -> list[Table | str]:
    rows = summary["cells"]
    others = list(dict.fromkeys(row["against"] for row in rows))
    shown: list[Table | str] = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        shown += [_count(summary, metric, other) for other in others]
        shown.append(_table(summary, metric, others))
    shown.append(_NOTE.format(**summary))
    if summary["missing"]:
        shown.append(f"not calibrated, left out: {', '.join(summary['missing'])}")
    return shown


def _table(summary: dict[str, Any], metric: str, others: list[str]) -> Table:
    """A row a cell, a column an opponent."""
    lines = []
    for name, cell in _by_cell(summary["cells"]).items():
        first, ratios = cell[metric, others[0]], (_cell_text(cell[metric, other]) for other in others)
        lines.append((name, f"{100 * first['all_zero']:.1f} %", f"{first['hit_rate']:.2g}", *ratios))
    header = ("cell", "all-zero", "hit rate", *(f"vs {other}" for other in others))
    return Table(f"{metric}: log10 budget ratio of {summary['method']}", header, lines)


def _figures(summary: dict[str, Any]) -> list[Drawn]:
    """Heat maps: `slices` (a line a point of each axis) and one for each crossed pair of axes."""
    apply_style()
    rows = summary["cells"]
    slices = [row for row in rows if not row["y"]]
    pairs = list(dict.fromkeys((row["x"], row["y"]) for row in rows if row["y"]))
    words = (
        f"log10 budget ratio of {summary['method']}: blue it is cheaper, red dearer; in brackets not told from 0; "
        f"- nobody gains. {summary['seeds']} worlds a cell, rates tuned for each metric on other worlds."
    )
    drawn = [Drawn("slices", "The map: slices through the base setting", _slices_figure(slices), words)] if slices else []
    for x, y in pairs:
        grid = [row for row in rows if (row["x"], row["y"]) == (x, y)]
        drawn.append(Drawn(f"grid-{x}-{y}".replace(" ", "-"), f"The map: {x} and {y}", _grid_figure(grid), words))
    return drawn


def _compare(found: Comparison, setting: str, method: str, other: str, metric: str) -> dict[str, Any]:
    mine, theirs = (found.curves(setting, name, metric) for name in (method, other))
    gains = [gain(metric, [curves.finals_S], [curves.starts_S]) for curves in (mine, theirs)]
    return {
        "log10_budget_ratio": asdict(mean_interval(matched_log_ratio(mine, theirs))),
        "relative_difference": asdict(gain(metric, [mine.finals_S], [theirs.finals_S])),
        "gain": asdict(gains[0]),
        "other_gain": asdict(gains[1]),
        "someone_gains": any(found.above > 0 for found in gains),
        "learning_rates": [found.rate(setting, name, metric)[0] for name in (method, other)],
    }


def _pooled(
    rows: Sequence[dict[str, Any]], found: Comparison, method: str, other: str, metric: str
) -> dict[str, dict[str, Any]]:
    """The mean over all distinct settings of the map, each with the same weight."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    mine, theirs = ([found.curves(setting, name, metric) for setting in settings] for name in (method, other))
    ratios = [matched_log_ratio(curves, others) for curves, others in zip(mine, theirs, strict=True)]
    return {
        "log10_budget_ratio": asdict(mean_interval(*ratios)),
        "relative_difference": asdict(gain(metric, [c.finals_S for c in mine], [c.finals_S for c in theirs])),
    }


def _world(found: Comparison, setting: str) -> dict[str, float]:
    worlds = found.reported_worlds.filter(setting=setting)
    columns = ("all_zero", "single_hit", "multi_hit", "hit_rate", "best_possible", "base_pass_at_1_greedy")
    return {name: float(worlds[name].to_numpy().mean()) for name in columns}


def _by_cell(rows: list[dict[str, Any]]) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    cells: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        crossed = f", {row['y']} {row['y_label']}" if row["y"] else ""
        cells.setdefault(f"{row['x']} {row['x_label']}{crossed}", {})[row["metric"], row["against"]] = row
    return cells


def _cell_text(row: dict[str, Any]) -> str:
    ratio, difference = row["log10_budget_ratio"], row["relative_difference"]
    if difference["value"] == 0 and difference["low"] in (0, None):
        return "equal"
    if not row["someone_gains"]:
        return "(-)"
    return interval_text(ratio) + ("" if row["significant"] else " (ns)")


def _count(summary: dict[str, Any], metric: str, other: str) -> str:
    """The pooled result, and how many distinct settings each side wins."""
    own = [row for row in summary["cells"] if (row["metric"], row["against"]) == (metric, other)]
    settings = {row["setting"]: row for row in own}
    (whole,) = (row for row in summary["pooled"] if (row["metric"], row["against"]) == (metric, other))
    told = [row["log10_budget_ratio"]["value"] for row in settings.values() if row["someone_gains"] and row["significant"]]
    gaining = sum(row["someone_gains"] for row in settings.values())
    ratio, score = interval_text(whole["log10_budget_ratio"]), interval_text(whole["relative_difference"], percent=True)
    return (
        f"{metric}, {summary['method']} vs {other}: over all {len(settings)} settings log10 budget ratio {ratio}, final score "
        f"{score}; one gains in {gaining}, cheaper in {sum(v < 0 for v in told)}, dearer in {sum(v > 0 for v in told)}"
    )


def _slices_figure(rows: list[dict[str, Any]]) -> Figure:
    cells = _by_cell(rows)
    pairs = list(dict.fromkeys((row["metric"], row["against"]) for row in rows))
    figure, axis = plt.subplots(figsize=(2.2 + 1.25 * len(pairs), 1.6 + 0.27 * len(cells)))
    _heat(axis, [[cell[pair] for pair in pairs] for cell in cells.values()])
    words = [f"{metric}\nvs {other}" for metric, other in pairs]
    axis.set_xticks(range(len(pairs)), words, rotation=40, ha="right", fontsize=7)
    axis.set_yticks(range(len(cells)), list(cells), fontsize=8)
    axes_of = [next(iter(cell.values()))["x"] for cell in cells.values()]
    for line in (i for i in range(1, len(axes_of)) if axes_of[i] != axes_of[i - 1]):
        axis.axhline(line - 0.5, color=INK, linewidth=1)
    figure.tight_layout()
    return figure


def _grid_figure(rows: list[dict[str, Any]]) -> Figure:
    metrics, others = (list(dict.fromkeys(row[key] for row in rows)) for key in ("metric", "against"))
    xs, ys = (list(dict.fromkeys(row[key] for row in rows)) for key in ("x_label", "y_label"))
    shape = (len(others), len(metrics))
    figure, axes = plt.subplots(*shape, figsize=(1.2 + 3.4 * shape[1], 1.2 + 2.4 * shape[0]), squeeze=False)
    at = {(row["against"], row["metric"], row["y_label"], row["x_label"]): row for row in rows}
    for axis, (other, metric) in zip(axes.flat, ((o, m) for o in others for m in metrics), strict=True):
        _heat(axis, [[at.get((other, metric, y, x)) for x in xs] for y in ys])
        axis.set_xticks(range(len(xs)), xs, fontsize=7)
        axis.set_yticks(range(len(ys)), ys, fontsize=7)
        axis.set(xlabel=rows[0]["x"], ylabel=rows[0]["y"])
        axis.set_title(f"{metric} vs {other}", fontsize=9)
    figure.tight_layout()
    return figure


def _heat(axis: Axes, table: list[list[dict[str, Any] | None]]) -> None:
    values = np.array([[_value(row) for row in line] for line in table])
    axis.imshow(values, cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, aspect="auto")
    for i, line in enumerate(table):
        for j, row in enumerate(line):
            if row is not None:
                text = f"{_value(row):+.2f}" if row["someone_gains"] else "-"
                faint = row["someone_gains"] and not row["significant"]
                colour = "white" if abs(values[i, j]) > 0.7 * _LIMIT else "black"
                axis.text(j, i, f"({text})" if faint else text, ha="center", va="center", fontsize=7, color=colour)
    axis.grid(False)
    axis.set_facecolor("0.9")


def _value(row: dict[str, Any] | None) -> float:
    return row["log10_budget_ratio"]["value"] if row is not None and row["someone_gains"] else np.nan
