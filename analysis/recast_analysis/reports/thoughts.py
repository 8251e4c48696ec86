"""Report of `recast-sim thoughts` from its folder alone: what each method gains, pairs, exact gradients, and a figure.

Axes: S seeds (worlds).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from recast_analysis.drawing.reading_aids import better
from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.statistics import mean_interval
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError, read_run
from recast_sim.runs.table_files import read_table

_GREEDY, _ONE = "pass_at_1_greedy", "pass_at_1_one_thought"
_METRICS = {_GREEDY: "all thoughts summed out", _ONE: "behind one sampled thought"}
_BASE = "base"
_COLOURS = ("#4477aa", "#ee9944", "#228833", "#cc3311", "#999999", "#aa3377", "#66ccee")
_NOTE = (
    "Held-out prompts; means over {worlds} worlds, changes paired by world, 95 % t intervals; rates tuned on {tuning} other "
    "worlds, for each metric. all thoughts: greedy Pass@1 of the likeliest item with all thoughts summed out, which decides; "
    "one thought: of the likeliest item behind one sampled thought; then: with all thoughts, at the rate tuned for one. told: "
    "what the thought tells of the item, I(z; y | x), nats. learnable: share of groups of {size} that moved the thoughts "
    "(thought and SID, for a hard reward)."
)
_GRADIENTS = (
    "Exact, at the start, groups of {size}, means over {worlds} worlds. Cosines of the expected update to the exact gradients "
    "of the chance that a draw is a hit and of the targets' log-likelihood, both on the first {prompts} train prompts, and of "
    "the held-out log-likelihood. variance: of one group's update, over its mean's square; within: its share from sampling."
)
Row = dict[str, Any]


def report(root: Path) -> Report:
    """A table of gains for each setting, one of pairs for each metric, one of gradients for each setting, and the figure.

    Raises:
        RunError: no run of this kind, or one without its tables.
    """
    manifest = read_run(root).manifest
    if manifest["kind"] != "thoughts":
        raise RunError(f"{root}: holds no run of `recast-sim thoughts`, its kind is {manifest['kind']!r}")
    scores, gradients, config = _Scores(root), _table(root, "gradients"), manifest["config"]
    words = {
        "worlds": scores.worlds,
        "tuning": config["protocol"]["tuning_seeds"],
        "size": config["setting"]["training"]["group_size"],
        "prompts": config["protocol"]["gradient_prompts"],
    }
    gains = [_gain(scores, name, method) for name in scores.settings for method in (_BASE, *scores.methods(name))]
    pairs = [
        {"metric": metric, "pair": f"{mine} vs {other}", "setting": name, **scores.change(name, mine, other, metric, metric)}
        for metric in _METRICS
        for mine, other in config["pairs"]
        for name in scores.settings
        if {mine, other} <= {*scores.methods(name)}
    ]
    updates = gradients.group_by("setting", "method", maintain_order=True).mean().drop("seed").to_dicts()
    parts = [
        *(_gain_table(name, gains) for name in scores.settings),
        _NOTE.format(**words),
        *(_pair_table(metric, pairs, scores.settings) for metric in _METRICS if pairs),
        *(_gradient_table(name, updates) for name in scores.settings),
        _GRADIENTS.format(**words),
        *scores.edges(),
    ]
    summary = {"gains": gains, "pairs": pairs, "gradients": updates}
    return Report(summary, parts, lambda: [_figure(gains, scores.settings, words)])


def _table(root: Path, name: str) -> pl.DataFrame:
    if not (file := root / f"{name}.parquet").exists():
        raise RunError(f"{root}: {name}.parquet is missing; `recast-sim thoughts` writes it when it ends")
    return read_table(file, RunError)


class _Scores:
    """Runs by setting and method, each at the rate that was tuned for a metric; the start is the method "base"."""

    def __init__(self, root: Path) -> None:
        self.runs, self.rates = _table(root, "runs"), _table(root, "rates")
        self.settings: list[str] = self.runs["setting"].unique(maintain_order=True).to_list()
        self.worlds = self.runs["seed"].n_unique()

    def methods(self, setting: str) -> list[str]:
        return self.rates.filter(pl.col("setting") == setting)["method"].unique(maintain_order=True).to_list()

    def column(self, setting: str, method: str, metric: str, column: str) -> NDArray[np.float64]:
        """A column of a method's final scores at the rate for a metric, (S,); NaN where a run broke off."""
        place = (pl.col("setting") == setting) & (pl.col("method") == method)
        found = self.runs.filter(place)
        if method != _BASE:
            (rate,) = self.rates.filter(place & (pl.col("metric") == metric))["learning_rate"]
            found = found.filter(pl.col("learning_rate") == rate)
        return found.sort("seed")[column].cast(pl.Float64).fill_null(np.nan).to_numpy()

    def change(self, setting: str, mine: str, other: str, metric: str, column: str) -> Row:
        """The mean relative change of a column with its interval; a run that broke off has lost everything."""
        own_S, other_S = (self.column(setting, method, metric, column) for method in (mine, other))
        return asdict(mean_interval(np.nan_to_num(own_S) / other_S - 1))

    def edges(self) -> list[str]:
        """Which chosen rates stand at an end of their grid, in a sentence; nothing where none does."""
        found = self.rates.filter(pl.col("at_edge")).to_dicts()
        named = [f"{row['method']} in {row['setting']} for {row['metric']}" for row in found]
        return [f"Rates at an end of their grid: {'; '.join(named)}."] if named else []


def _gain(scores: _Scores, setting: str, method: str) -> Row:
    row: Row = {"setting": setting, "method": method}
    for metric in _METRICS:
        row[metric] = float(scores.column(setting, method, metric, metric).mean())
        row[f"{metric}_gain"] = scores.change(setting, method, _BASE, metric, metric)
        row[f"{metric}_told"] = _mean(scores.column(setting, method, metric, "thought_information"))
    row["then_gain"] = scores.change(setting, method, _BASE, _ONE, _GREEDY)
    for column in ("learnable", "recall_at_k"):
        row[column] = _mean(scores.column(setting, method, _GREEDY, column))
    return row


def _mean(values_S: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values_S).any() else float(values_S.mean())


def _gain_table(setting: str, gains: Sequence[Row]) -> Table:
    cells = [
        (
            row["method"],
            *(f"{row[_GREEDY]:.4f}", _change(row, f"{_GREEDY}_gain"), _known(row[f"{_GREEDY}_told"], ".2f")),
            *(_known(row["recall_at_k"], ".4f"), _known(row["learnable"], ".0%")),
            *(f"{row[_ONE]:.4f}", _change(row, f"{_ONE}_gain"), _known(row[f"{_ONE}_told"], ".2f")),
            _change(row, "then_gain"),
        )
        for row in gains
        if row["setting"] == setting
    ]
    header = ("", "all thoughts", "change", "told", "Recall@10", "learnable", "one thought", "change", "told", "then")
    return Table(f"{setting}: greedy Pass@1 after training, changes from the start", header, cells)


def _change(row: Row, gain: str) -> str:
    return "" if row["method"] == _BASE else interval_text(row[gain], percent=True)


def _known(value: float | None, form: str) -> str:
    return "" if value is None else format(max(0.0, value), form)  # rounding can take an information of 0 below it


def _pair_table(metric: str, pairs: Sequence[Row], settings: Sequence[str]) -> Table:
    found = {(row["pair"], row["setting"]): interval_text(row, percent=True) for row in pairs if row["metric"] == metric}
    names = dict.fromkeys(pair for pair, _ in found)
    cells = [(pair, *(found.get((pair, setting), "") for setting in settings)) for pair in names]
    return Table(f"greedy Pass@1, {_METRICS[metric]}: one method against another", ("", *settings), cells)


def _gradient_table(setting: str, updates: Sequence[Row]) -> Table:
    cells = [
        (
            row["method"],
            f"{row['learnable']:.1%}",
            *(f"{row[key]:+.3f}" for key in ("cosine_hit", "cosine_likelihood", "cosine_heldout")),
            f"{row['variance']:.1f}",
            f"{row['within']:.1%}",
        )
        for row in updates
        if row["setting"] == setting
    ]
    header = ("", "learnable", "cosine: hit", "log-likelihood", "held out", "variance", "within")
    return Table(f"{setting}: the update at the start", header, cells)


def _figure(gains: Sequence[Row], settings: Sequence[str], words: Row) -> Drawn:
    apply_style()
    methods = [name for name in dict.fromkeys(row["method"] for row in gains) if name != _BASE][::-1]
    size = (10.5, 1.6 + (0.14 + 0.12 * len(settings)) * len(methods))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axis, letter, (metric, title) in zip(axes, "ab", _METRICS.items(), strict=True):
        for place, setting in enumerate(settings):
            own = {row["method"]: row[f"{metric}_gain"] for row in gains if row["setting"] == setting}
            height = 0.75 * (0.5 - (place + 0.5) / len(settings))
            points = [(at + height, own[method]) for at, method in enumerate(methods) if method in own]
            _draw(axis, points, _COLOURS[place % len(_COLOURS)], setting)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set(yticks=range(len(methods)), yticklabels=methods, title=f"({letter}) {title}")
        axis.set(xlabel="change of greedy Pass@1 from the start (%)")
        better(axis, "right")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    caption = (
        f"95 % t intervals over {words['worlds']} worlds a setting, each method at the rate tuned for the panel's metric on "
        f"other worlds; groups of {words['size']}. A policy without a thought starts from a base of its own; its change is "
        "from the others' base too."
    )
    return Drawn("thoughts", "What trains a thought before the SID", figure, caption)


def _draw(axis: Axes, points: Sequence[tuple[float, Row]], colour: str, label: str) -> None:
    middle = [100 * row["value"] for _, row in points]
    ends = [[100 * (row["value"] if row[end] is None else row[end]) for _, row in points] for end in ("low", "high")]
    reach = np.abs(np.array(ends) - middle)
    axis.errorbar(
        middle, [at for at, _ in points], xerr=reach, fmt="o", markersize=4, linestyle="none", color=colour, label=label
    )
