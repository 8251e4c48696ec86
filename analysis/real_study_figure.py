"""Figure of the real study: changes from the starting point, budget curves, and the all-zero share over training."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from analysis.real_study import StudyTables
from analysis.statistics import mean_band
from analysis.style import apply_style, colours, save_figure

_DOTS = ("pass_at_1_sampled", "pass_at_1_greedy", "ndcg@10")


def draw_real_study(root: Path, summary: dict[str, Any]) -> Path:
    """One row of panels for each starting point; returns the PNG's path."""
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
    grid[0][-1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    words = f"{summary['seeds']} seeds. Dots: test prompts, 95 % interval over seeds and users. "
    words += "Curves: mean over seeds on validation prompts, band: 95 % bootstrap interval over seeds."
    figure.text(0.01, 0.005, words, fontsize=8)
    return save_figure(figure, root / "figure.png")


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
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="change from the starting point (%)")
    axes.set_title(f"{label}: test prompts")
    axes.invert_yaxis()
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=7, ncols=len(_DOTS), loc="lower center", bbox_to_anchor=(0.4, -0.3))


def _curves(axes: Axes, found: StudyTables, label: str, metric: str, shades: dict[str, str]) -> None:
    for name in found.methods:
        curves = found.curves(label, name, metric)
        low, middle, high = mean_band(curves.scores_SE)
        steps = curves.spent["optimiser_steps"].mean(0)
        axes.plot(steps, middle, color=shades[name], label=name, linewidth=1.2)
        axes.fill_between(steps, low, high, color=shades[name], alpha=0.12, linewidth=0)
    axes.set(xlabel="optimiser steps", ylabel=metric)
    axes.set_title(f"{label}: {metric}, validation")
