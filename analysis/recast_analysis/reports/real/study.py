"""Report of the real study (`recast-train study`) from its folder alone."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.panels import draw_band
from recast_analysis.drawing.reading_aids import GREY, better, foremost, legend_above, others
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours
from recast_analysis.drawing.words import metric_words, ratio_text
from recast_analysis.measures.study_changes import CURVES, METRICS, SHARES, START, StudyTables, measure_study
from recast_analysis.reports.pieces.real_learning_table import LEARNING_NOTE, learning_table
from recast_analysis.reports.report import Report, Table

_CURVES = (*CURVES, "all_zero_expected")
_IN_POINTS = ("all_zero_expected",)
_DOTS = (*CURVES, "pass_at_1_sampled")
_NOTE = (
    "Means over {seeds} seeds, each with its own semantic IDs, model, prompts and {prompts:,} test prompts. In brackets: "
    "the change relative to the starting point in percent, with its 95 % t interval over seeds and users, paired in both. "
    "pass@10: whole catalog ranked; hr@10, ndcg@10: seen items filtered, but not where 5 % of the targets or more were seen "
    "before. Sampled Pass@1 can be bought by cooling. lr: chosen by the geometric mean of greedy Pass@1 and NDCG@10 on "
    "validation prompts of seeds that are not reported, from a grid that grows until the best rate lies inside; * it is at an "
    "end still."
)


def report(root: Path) -> Report:
    """For each starting point its regime and references, the methods' scores and what they spent; a figure each.

    Raises:
        RunError: the study is not finished.
    """
    summary = measure_study(root)
    return Report(summary, _shown(summary), lambda: _figures(root, summary))


def _shown(summary: dict[str, Any]) -> list[Table | str]:
    shown: list[Table | str] = []
    for label, setting in summary["settings"].items():
        shares = " / ".join(f"{100 * setting['regime'][name]:.1f}" for name in SHARES)
        known = ", ".join(f"{name} {value:.4f}" for name, value in setting["references"].items())
        words = (
            f"{label}: all-zero / single-hit / multi-hit {shares} % of groups on train prompts; targets seen before "
            f"{setting['targets_seen_before']:.1%}; hr@10 of references: {known}"
        )
        shown += [words, _scores(label, setting), _spent(label, setting)]
        if setting["learning"]:
            shown.append(learning_table(setting["learning"], label))
    settings = summary["settings"].values()
    if any(setting["learning"] for setting in settings):
        shown.append(LEARNING_NOTE.format(over="seeds"))
    prompts = next(iter(settings))["test_prompts"]
    return [*shown, _NOTE.format(seeds=summary["seeds"], prompts=prompts), f"run: {summary['run']}"]


def _scores(label: str, setting: dict[str, Any]) -> Table:
    rows = []
    for name in (START, *setting["methods"]):
        rate = "" if name == START else _rate(setting["methods"][name])
        rows.append((name, rate, *(_cell(setting["metrics"][metric][name], name == START) for metric in METRICS)))
    smallest = (_smallest_effect(setting["metrics"][metric]) for metric in METRICS)
    rows.append(("smallest visible effect (median)", "", *smallest))
    return Table(f"{label}: test scores", ("", "lr", *METRICS), rows)


def _smallest_effect(rows: dict[str, Any]) -> str:
    """The median over methods."""
    changes = [row["versus_start"] for name, row in rows.items() if name != START]
    seen = [change["smallest_effect"] for change in changes if change and change["smallest_effect"] is not None]
    return f"{100 * float(np.median(seen)):.1f} %" if seen else ""


def _spent(label: str, setting: dict[str, Any]) -> Table:
    rows = []
    for name, row in setting["methods"].items():
        spent = [f"{row[column]:,.0f}" for column in ("rollouts", "actor_rows", "actor_tokens")]
        ratios = [ratio_text(row["steps_ratio_to_grpo"][metric]) if row["steps_ratio_to_grpo"] else "" for metric in CURVES]
        rows.append((name, *spent, f"{row['all_zero_expected']:.4f}", *ratios))
    columns = ("", "rollouts", "actor rows", "actor tokens", "all-zero expected, validation")
    title = f"{label}: what was spent, and steps to reach grpo's final validation score over grpo's"
    return Table(title, (*columns, *(f"steps ratio, {metric}" for metric in CURVES)), rows)


def _rate(row: dict[str, Any]) -> str:
    return f"{row['learning_rate']:g}{'*' if row['at_edge'] else ''}"


def _cell(row: dict[str, Any], is_start: bool) -> str:
    value, change = f"{row['value']:.4f}", row["versus_start"]
    if is_start or change is None:
        return value
    within = "" if change["low"] is None else f" [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
    return f"{value} ({100 * change['value']:+.1f}{within})"


def _figures(root: Path, summary: dict[str, Any]) -> list[Drawn]:
    """One for each starting point."""
    found = StudyTables.read(root)
    apply_style()
    settings = summary["settings"]
    shown = foremost(summary["methods"])
    drawn = []
    for label, setting in settings.items():
        figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
        _changes(axes[0, 0], label, setting, colours(summary["methods"]))
        for axis, metric in zip(axes.flat[1:], _CURVES, strict=True):
            _curves(axis, found, label, metric, colours(shown))
        legend_above(figure, axes.flat[1:])
        words = f"{summary['seeds']} seeds. Dots: test prompts, 95 % interval over seeds and users. Curves: change from each "
        words += (
            f"seed's own start on validation prompts, mean and 95 % t interval over seeds.{others(summary['methods'], shown)}"
        )
        name = "figure" if len(settings) == 1 else f"figure-{len(drawn) + 1}"
        drawn.append(Drawn(name, f"Changes from the starting point {label}", figure, words))
    return drawn


def _changes(axes: Axes, label: str, setting: dict[str, Any], shades: dict[str, str]) -> None:
    names = list(setting["methods"])
    for shift, (metric, marker) in enumerate(zip(_DOTS, "osD", strict=True)):
        for place, name in enumerate(names):
            change = setting["metrics"][metric][name]["versus_start"]
            if change is None:
                continue
            low, high = (change["value"] if change[end] is None else change[end] for end in ("low", "high"))
            reach = [[max(0.0, change["value"] - low)], [max(0.0, high - change["value"])]]
            at = place + 0.22 * (shift - 1)
            style: dict[str, Any] = {"fmt": marker, "markersize": 4, "capsize": 2, "color": shades[name]}
            axes.errorbar(100 * change["value"], at, xerr=100 * np.array(reach), **style)
        axes.plot([], [], marker, markersize=4, color=INK, label=metric_words(metric))
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(
        yticks=range(len(names)), yticklabels=names, xlabel="change from the starting point (%)", title=f"{label}: test prompts"
    )
    better(axes, "right")
    axes.invert_yaxis()
    axes.legend(fontsize=9, ncols=len(_DOTS), loc="upper center", bbox_to_anchor=(0.3, -0.13))


def _curves(axes: Axes, found: StudyTables, label: str, metric: str, shades: dict[str, str]) -> None:
    """Change from each seed's own start: in percent of it, in points of a share and where a seed starts from 0."""
    of_methods = {name: found.curves(label, name, metric) for name in found.methods}
    in_points = metric in _IN_POINTS or any((curves.starts_S <= 0).any() for curves in of_methods.values())
    for name, curves in of_methods.items():
        change_SE = curves.scores_SE - curves.starts_S[:, None]
        change_SE = 100 * (change_SE if in_points else change_SE / curves.starts_S[:, None])
        steps = curves.spent["optimiser_steps"].mean(0)
        if name in shades:
            draw_band(axes, steps, change_SE, shades[name], name, look(name).dash)
        else:
            axes.plot(steps, change_SE.mean(0), color=GREY, linewidth=1, zorder=1)
    axes.axhline(0, color=INK, linewidth=0.8)
    unit = "points" if in_points else "%"
    axes.set(xlabel="optimiser steps", ylabel=f"change from the start ({unit})", title=metric_words(metric))
    better(axes, "down" if metric in _IN_POINTS else "up")
