"""Report of the closed forms that `recast-sim theory` computed, from its folder alone."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from recast_analysis.drawing.panels import same_curves
from recast_analysis.drawing.reading_aids import GREY, foremost
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours, plain_powers
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError, read_run
from recast_sim.runs.table_files import read_table

_PAPER_GROUP = 32
_LETTERS = 36  # of a line of a legend
_KINDS = {"homogeneous": (INK, "-"), "beta": ("#cc3311", "--")}
_PER = {"(a) weights per rollout": ("rollout",), "(b) per group, dash-dot: per kept rollout": ("group", "kept rollout")}
_NOTE = (
    "Weight: E[sum of A grad log pi] = w(p) grad p. Per rollout: the sum over a group, divided by its rows; per kept rollout: "
    "over the kept rows of the groups that are kept, divided by them (two_grpo, pods, dapo after its redraw); per group: "
    "undivided, for pairs and anchors, whose loss averages over 1 or 2 kept rows or over groups (of a pair the positive half). "
    "Learnable: a hit and a miss in the group, no repair. dapo's Beta-mixed cost: a redraw takes a new prompt."
)


def report(root: Path) -> Report:
    """Regimes, learnable fractions over G, weights, dapo's cost and the best group size, and the figure.

    Raises:
        RunError: no run folder, or one of another kind; when the figure is drawn, one without its curves.
    """
    manifest = read_run(root).manifest
    if manifest["kind"] != "theory":
        raise RunError(f"{root}: holds no run of `recast-sim theory`, its kind is {manifest['kind']!r}")
    summary = manifest["summary"]
    tables = (_regimes(summary), _learnable(summary), _weights(summary), _costs(summary))
    return Report(summary, (*tables, _NOTE), lambda: [_figure(root, manifest["config"], summary)])


def _figure(root: Path, config: dict[str, Any], summary: dict[str, Any]) -> Drawn:
    file = root / "curves.parquet"
    if not file.exists():
        raise RunError(f"{root}: holds no curves.parquet; run `recast-sim theory` again")
    curves = read_table(file, RunError)
    apply_style()
    figure, axes = plt.subplots(2, 2, figsize=(11, 9.5), layout="constrained")
    per = {name: row["per"] for name, row in summary["weights"].items()}
    grey: list[str] = []
    for axis, (title, kinds) in zip(axes[0], _PER.items(), strict=True):
        grey += _draw_weights(axis, curves, config, {name: kind for name, kind in per.items() if kind in kinds})
        axis.set_title(f"{title}, G = {config['group_size']}")
    _draw_learnable(axes[1, 0], curves, config)
    _draw_costs(axes[1, 1], curves, config)
    words = "Closed forms for i.i.d. groups with binary rewards; no sampling, so no interval. "
    words += f"Grey, {len(grey)} more: {'; '.join(grey)}." if grey else ""
    return Drawn("figure", "Gradient weights, learnable groups, dapo's cost", figure, words)


def _labels(config: dict[str, Any]) -> dict[str, str]:
    """Two kinds of prompts in words; takes a theory run's config or its summary."""
    a, b = config["beta"]
    mixed = f"Beta({a:.4g}, {b:.4g}), mean {a / (a + b):.3g}"
    return {"homogeneous": f"all prompts p = {config['hit_rate']:.3g}", "beta": mixed}


def _regimes(summary: dict[str, Any]) -> Table:
    header = ("prompts", "all-zero", "single-hit", "multi-hit", "all-hit")
    rows = [
        (label, *(f"{100 * share:.1f} %" for share in summary["regimes"][kind].values()))
        for kind, label in _labels(summary).items()
    ]
    return Table(f"regimes at G = {summary['group_size']}", header, rows)


def _learnable(summary: dict[str, Any]) -> Table:
    sizes = summary["learnable"]
    rows = [(label, *(f"{100 * row[kind]:.1f} %" for row in sizes)) for kind, label in _labels(summary).items()]
    return Table("learnable groups, no repair", ("prompts", *(f"G = {row['group_size']}" for row in sizes)), rows)


def _weights(summary: dict[str, Any]) -> Table:
    rows = [(name, f"{row['weight']:.4g}", row["per"], row["formula"]) for name, row in summary["weights"].items()]
    title = f"gradient weights at p = {summary['hit_rate']:.4g}, G = {summary['group_size']}"
    words = ("constructor", "per", "closed form")
    return Table(title, ("constructor", "w(p)", "per", "closed form"), rows, words)


def _costs(summary: dict[str, Any]) -> Table:
    cost, best = summary["rollouts_per_kept_group"], summary["best_group_size"]
    rows = [(label, f"{cost[kind]:.1f}", str(best[kind])) for kind, label in _labels(summary).items()]
    title = f"budgets (a group costs its rollouts + {summary['prompt_cost']:g})"
    column = f"dapo: rollouts per kept group, G = {summary['group_size']}"
    return Table(title, ("prompts", column, "best G for learnable groups"), rows)


def _draw_weights(axis: Axes, curves: pl.DataFrame, config: dict[str, Any], per: dict[str, str]) -> list[str]:
    """Twins are drawn once and named together. Returns the names of what is grey."""
    lines = {name: _line(curves, "weight", "p", name) for name in config["constructors"] if name in per}
    groups = same_curves({name: (line[1],) for name, line in lines.items()})
    shown = foremost([names[0] for names in groups])
    palette = colours(shown)
    for names in sorted(groups, key=lambda names: names[0] in shown):  # grey lines lie below
        colour = palette.get(names[0], GREY)
        label = textwrap.fill(", ".join(names), _LETTERS) if names[0] in shown else None
        style = "-." if per[names[0]] == "kept rollout" else "-"
        axis.plot(*lines[names[0]], color=colour, linestyle=style, linewidth=1.8 if label else 1, label=label)
    axis.axvline(config["hit_rate"], color="#999999", linewidth=0.8, zorder=0, label=f"p = {config['hit_rate']:.3g}")
    axis.set(xscale="log", yscale="log", xlabel="hit rate p", ylabel="weight w(p), expected gradient = w(p) grad p")
    for one in (axis.xaxis, axis.yaxis):
        plain_powers(one)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2, fontsize=9)
    return [" = ".join(names) for names in groups if names[0] not in shown]


def _draw_learnable(axis: Axes, curves: pl.DataFrame, config: dict[str, Any]) -> None:
    for kind, label in _labels(config).items():
        sizes, fraction = _line(curves, f"learnable_{kind}", "group_size")
        colour, style = _KINDS[kind]
        axis.plot(sizes, 100 * fraction, color=colour, linestyle=style, label=label)
    axis.set(ylabel="learnable groups (%)", ylim=(0, 103), title="(c) learnable groups without repair")
    _over_group_size(axis)


def _draw_costs(axis: Axes, curves: pl.DataFrame, config: dict[str, Any]) -> None:
    for kind, label in _labels(config).items():
        colour, style = _KINDS[kind]
        axis.plot(*_line(curves, f"rollouts_per_kept_group_{kind}", "group_size"), color=colour, linestyle=style, label=label)
    sizes, _ = _line(curves, "learnable_homogeneous", "group_size")
    axis.plot(sizes, sizes, color="#999999", linewidth=0.8, label="G, every group learnable")
    axis.set(yscale="log", ylabel="rollouts", title="(d) rollouts drawn per learnable group (dapo's cost)")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _over_group_size(axis)


def _over_group_size(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("group size G")
    axis.axvline(_PAPER_GROUP, color="#999999", linewidth=0.8, linestyle=":", label="the paper's G = 32")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2, fontsize=9)


def _line(curves: pl.DataFrame, curve: str, over: str, constructor: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    rows = curves.filter(pl.col("curve") == curve)
    if constructor is not None:
        rows = rows.filter(pl.col("constructor") == constructor)
    rows = rows.sort(over)
    return rows[over].to_numpy(), rows["value"].to_numpy()
