"""Report of `recast-sim thoughts` from its folder alone: what each method gains, exact gradients at the start, and a figure."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from recast_analysis.drawing.reading_aids import better
from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.statistics import Interval, mean_interval
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError, read_run
from recast_sim.runs.table_files import read_table

_GREEDY, _ONE, _BASE = "pass_at_1_greedy", "pass_at_1_one_thought", "base"
_SETTINGS = ("#4477aa", "#cc3311", "#228833", "#ee9944", "#aa3377", "#66ccee", "#999999")
_NOTE = (
    "Held-out prompts, {worlds} worlds a setting, paired by world, 95 % t intervals; rates tuned on {tuning} other worlds, for "
    "each metric. all thoughts: greedy Pass@1 of the likeliest item with all thoughts summed out, which decides; one thought: of "
    "the likeliest item behind one sampled thought. learnable: share of groups of {group_size} that moved the thoughts. told: "
    "what the thought tells of the item, I(z; y | x), nats, after training (start: {told})."
)
_GRADIENTS = (
    "Exact, at the start, groups of {group_size}, means over {worlds} worlds. Cosines of the expected update to exact gradients: "
    "the chance of a hit of a draw and the targets' log-likelihood, both with thoughts summed out on the same {prompts} train "
    "prompts, and the held-out log-likelihood. variance: of one group's update, over the square of its mean; within: its share "
    "from sampling."
)
Row = dict[str, Any]


def report(root: Path) -> Report:
    """A table of gains and one of gradients for each setting, and the figure.

    Raises:
        RunError: no run of this kind, or a finished one without its tables.
    """
    manifest = read_run(root).manifest
    if manifest["kind"] != "thoughts":
        raise RunError(f"{root}: holds no run of `recast-sim thoughts`, its kind is {manifest['kind']!r}")
    runs, rates, gradients = (_table(root, name) for name in ("runs", "rates", "gradients"))
    config = manifest["config"]
    settings = runs["setting"].unique(maintain_order=True).to_list()
    rows = [row for name in settings for row in _gains(runs, rates, name, config["against"])]
    parts: list[Table | str] = []
    for name in settings:
        own = [row for row in rows if row["setting"] == name]
        parts.append(_gain_table(name, own, config, runs.filter(pl.col("setting") == name)))
    parts += [_gradient_table(name, gradients.filter(pl.col("setting") == name), config) for name in settings]
    parts.append(_edges(rates))
    summary = {"against": config["against"], "gains": rows, "gradients": _gradient_rows(gradients)}
    return Report(summary, [part for part in parts if part], lambda: [_figure(rows, settings, config)])


def _table(root: Path, name: str) -> pl.DataFrame:
    if not (file := root / f"{name}.parquet").exists():
        raise RunError(f"{root}: {name}.parquet is missing; `recast-sim thoughts` writes it when it ends")
    return read_table(file, RunError)


def _gains(runs: pl.DataFrame, rates: pl.DataFrame, setting: str, against: str) -> list[Row]:
    """A row a method: its final scores and their changes, metric by metric, the start first."""
    methods = rates.filter(pl.col("setting") == setting)["method"].unique(maintain_order=True).to_list()
    rows = []
    for method in (_BASE, *methods):
        row: Row = {"setting": setting, "method": method}
        for metric in (_GREEDY, _ONE):
            base, other, own = (_scores(runs, rates, setting, m, metric, metric) for m in (_BASE, against, method))
            row[metric] = float(own.mean())
            row[f"{metric}_gain"] = _change(own, base)
            row[f"{metric}_against"] = _change(own, other)
        for column in ("learnable", "thought_information", "recall_at_k"):
            row[column] = _mean(_scores(runs, rates, setting, method, _GREEDY, column))
        rows.append(row)
    return rows


def _scores(runs: pl.DataFrame, rates: pl.DataFrame, setting: str, method: str, metric: str, column: str) -> np.ndarray:
    """A column of a method's runs at the rate that was tuned for a metric, by world; NaN where a run broke off."""
    found = runs.filter((pl.col("setting") == setting) & (pl.col("method") == method))
    if method != _BASE:
        (rate,) = rates.filter((pl.col("setting") == setting) & (pl.col("method") == method) & (pl.col("metric") == metric))[
            "learning_rate"
        ]
        found = found.filter(pl.col("learning_rate") == rate)
    return found.sort("seed")[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _change(own_S: np.ndarray, other_S: np.ndarray) -> dict[str, Any]:
    """The mean relative change over worlds with its interval; a run that broke off gained nothing and lost all."""
    return asdict(mean_interval(np.nan_to_num(own_S) / other_S - 1))


def _mean(values_S: np.ndarray) -> float | None:
    return None if np.isnan(values_S).any() else float(values_S.mean())


def _gain_table(name: str, rows: Sequence[Row], config: Row, runs: pl.DataFrame) -> Table:
    against, protocol = config["against"], config["protocol"]
    cells = [
        (
            row["method"],
            f"{row[_GREEDY]:.4f}",
            *(_percent(row, _GREEDY, kind) for kind in ("gain", "against")),
            f"{row[_ONE]:.4f}",
            *(_percent(row, _ONE, kind) for kind in ("gain", "against")),
            "" if row["learnable"] is None else f"{100 * row['learnable']:.0f} %",
            "" if row["thought_information"] is None else f"{row['thought_information']:.2f}",
        )
        for row in rows
    ]
    header = (
        *("", "all thoughts", "against the start", f"against {against}", "one thought", "against the start "),
        *(f"against {against} ", "learnable", "told"),
    )
    note = _NOTE.format(
        worlds=runs["seed"].n_unique(),
        tuning=protocol["tuning_seeds"],
        group_size=config["setting"]["training"]["group_size"],
        told=cells[0][-1],
    )
    return Table(f"{name}: greedy Pass@1 after training", header, cells, note=note)


def _percent(row: Row, metric: str, kind: str) -> str:
    return "" if row["method"] == _BASE else interval_text(row[f"{metric}_{kind}"], percent=True)


def _gradient_rows(gradients: pl.DataFrame) -> list[Row]:
    columns = ("learnable", "cosine_hit", "cosine_likelihood", "cosine_heldout", "variance", "within")
    means = gradients.group_by("setting", "method", maintain_order=True).agg(pl.col(*columns).mean())
    return means.to_dicts()


def _gradient_table(name: str, gradients: pl.DataFrame, config: Row) -> Table:
    cells = [
        (
            row["method"],
            f"{100 * row['learnable']:.1f} %",
            *(f"{row[key]:+.3f}" for key in ("cosine_hit", "cosine_likelihood", "cosine_heldout")),
            f"{row['variance']:.1f}",
            f"{100 * row['within']:.1f} %",
        )
        for row in _gradient_rows(gradients)
    ]
    header = ("", "learnable", "cosine: hit", "log-likelihood", "held out", "variance", "within")
    words = _GRADIENTS.format(
        group_size=config["setting"]["training"]["group_size"],
        worlds=gradients["seed"].n_unique(),
        prompts=config["protocol"]["gradient_prompts"],
    )
    return Table(f"{name}: the update at the start", header, cells, note=words)


def _edges(rates: pl.DataFrame) -> str:
    """Which chosen rates stand at an end of their grid, or nothing."""
    at_edge = rates.filter(pl.col("at_edge"))
    named = [f"{row['method']} in {row['setting']} for {row['metric']}" for row in at_edge.to_dicts()]
    return f"Rates at an end of their grid: {'; '.join(named)}." if named else ""


def _figure(rows: Sequence[Row], settings: Sequence[str], config: Row) -> Drawn:
    apply_style()
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != _BASE][::-1]
    size = (10.5, 1.6 + (0.16 + 0.13 * len(settings)) * len(methods))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    for axis, metric, title in zip(
        axes, (_GREEDY, _ONE), ("(a) all thoughts summed out", "(b) one sampled thought"), strict=True
    ):
        for place, (setting, colour) in enumerate(zip(settings, _SETTINGS * len(settings), strict=False)):
            own = {row["method"]: row for row in rows if row["setting"] == setting}
            height = 0.7 * (0.5 - (place + 0.5) / len(settings))
            _draw(axis, [(at + height, own[m][f"{metric}_gain"]) for at, m in enumerate(methods) if m in own], colour, setting)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set(yticks=range(len(methods)), yticklabels=methods, xlabel="greedy Pass@1 against the start (%)", title=title)
        better(axis, "right")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9)
    worlds = rows[0][f"{_GREEDY}_gain"]["n"]
    words = (
        f"Change of greedy Pass@1 from the start of each world, 95 % t intervals over {worlds} worlds a setting, each method at the "
        f"rate tuned for the panel's metric on other worlds; groups of {config['setting']['training']['group_size']}. A method "
        "without a thought starts from a policy of its own, and its change is from the other methods' start too."
    )
    return Drawn("thoughts", "What trains a thought before the SID", figure, words)


def _draw(axis: Axes, found: Sequence[tuple[float, Row]], colour: str, label: str) -> None:
    intervals = [Interval(**row) for _, row in found]
    middle = [100 * one.value for one in intervals]
    reach = [
        [100 * (one.value - (one.value if end is None else end)) for one in intervals for end in [pick(one)]] for pick in _ENDS
    ]
    axis.errorbar(
        middle,
        [at for at, _ in found],
        xerr=[reach[0], [-r for r in reach[1]]],
        fmt="o",
        markersize=4,
        color=colour,
        label=label,
    )


_ENDS = (lambda one: one.low, lambda one: one.high)
