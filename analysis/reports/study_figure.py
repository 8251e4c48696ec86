"""Figure of the real study: changes from the starting point, budget curves, and the all-zero share over training."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analysis.drawing.panels import draw_band
from analysis.drawing.style import INK, Drawn, apply_style, colours
from analysis.reports.study import StudyTables

_DOTS = ("pass_at_1_sampled", "pass_at_1_greedy", "ndcg@10")


def real_study_figure(root: Path, summary: dict[str, Any]) -> Drawn:
    """One row of panels for each starting point."""
    found = StudyTables.read(root)
    apply_style()
    height = max(4.0, 0.42 * len(summary["methods"]))
    figure, grid = plt.subplots(
        len(summary["settings"]), 4, figsize=(19, height * len(summary["settings"])), width_ratios=(1.5, 1, 1, 1), squeeze=False
    )
    shades = colours(summary["methods"])
    for row, (label, setting) in zip(grid, summary["settings"].items(), strict=True):
        _changes(row[0], label, setting, shades)
        for axes, metric in zip(row[1:], ("pass_at_1_sampled", "ndcg@10", "all_zero_expected"), strict=True):
            _curves(axes, found, label, metric, shades)
    grid[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    figure.tight_layout()
    words = f"{summary['seeds']} seeds. Dots: test prompts, 95 % interval over seeds and users. "
    words += "Curves: mean over seeds on validation prompts, band: 95 % bootstrap interval over seeds."
    return Drawn("figure", "Changes from the starting points, curves and all-zero shares", figure, words)


def _changes(axes: Axes, label: str, setting: dict[str, Any], shades: dict[str, str]) -> None:
    names = list(setting["methods"])
    for shift, (metric, marker) in enumerate(zip(_DOTS, "osD", strict=True)):
        for place, name in enumerate(names):
            change = setting["metrics"][metric][name]["versus_start"]
            if change is None:
                continue
            reach = [[max(0.0, change["value"] - change["low"])], [max(0.0, change["high"] - change["value"])]]
            at = place + 0.22 * (shift - 1)
            key = {"label": metric} if place == 0 else {}
            style: dict[str, Any] = {"fmt": marker, "markersize": 4, "capsize": 2, "color": shades[name], **key}
            axes.errorbar(100 * change["value"], at, xerr=100 * np.array(reach), **style)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="change from the starting point (%)")
    axes.set_title(f"{label}: test prompts")
    axes.invert_yaxis()
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, ncols=len(_DOTS), loc="lower center", bbox_to_anchor=(0.4, -0.3))


def _curves(axes: Axes, found: StudyTables, label: str, metric: str, shades: dict[str, str]) -> None:
    for name in found.methods:
        curves = found.curves(label, name, metric)
        draw_band(axes, curves.spent["optimiser_steps"].mean(0), curves.scores_SE, shades[name], name)
    axes.set(xlabel="optimiser steps", ylabel=metric)
    axes.set_title(f"{label}: {metric}, validation")
