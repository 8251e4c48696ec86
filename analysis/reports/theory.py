"""Tables and figure of the closed forms that `recast-sim theory` computed, from its run folder alone."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from rich.box import MARKDOWN
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.drawing.panels import same_curves
from analysis.drawing.style import INK, Drawn, apply_style, colours
from recast_sim.runs import RunError, read_run

_PAPER_GROUP = 32
_KINDS = {"homogeneous": (INK, "-"), "beta": ("#cc3311", "--")}
_STYLES = {"rollout": "-", "kept rollout": "-.", "group": "--"}
_NOTE = (
    "Weight: E[sum of A grad log pi] = w(p) grad p. Per rollout: the sum over a group, divided by its rows; per kept rollout: "
    "over the kept rows of the groups that are kept, divided by them (two_grpo, pods, dapo after its redraw); per group: "
    "undivided, for pairs and anchors, whose loss averages over 1 or 2 kept rows or over groups (of a pair the positive half). "
    "Learnable: a hit and a miss in the group, no repair. dapo's Beta-mixed cost: a redraw takes a new prompt."
)


def print_theory(summary: dict[str, Any], console: Console) -> None:
    """Regimes, learnable fractions over G, weights, dapo's cost and the best group size, as Markdown tables."""
    for table in (_regimes(summary), _learnable(summary), _weights(summary), _costs(summary)):
        console.print(table)
    console.print(_NOTE, highlight=False, markup=False)


def theory_figure(root: Path) -> Drawn:
    """The three-panel figure of a theory run.

    Raises:
        RunError: no run folder, one of another kind, or one without its curves.
    """
    manifest = read_run(root).manifest
    file = root / "curves.parquet"
    if manifest["kind"] != "theory" or not file.exists():
        raise RunError(f"{root}: holds no curves.parquet of a `recast-sim theory` run, its kind is {manifest['kind']!r}")
    curves, config = pl.read_parquet(file), manifest["config"]
    apply_style()
    figure, axes = plt.subplots(1, 3, figsize=(16, 6.6), layout="constrained", width_ratios=(1.3, 1, 1))
    per = {name: row["per"] for name, row in manifest["summary"]["weights"].items()}
    _draw_weights(axes[0], curves, config, per)
    _draw_learnable(axes[1], curves, config)
    _draw_costs(axes[2], curves, config)
    words = "Closed forms for i.i.d. groups with binary rewards; no sampling, so no interval."
    return Drawn("figure", "Gradient weights, learnable groups, dapo's cost", figure, words)


def _labels(config: dict[str, Any]) -> dict[str, str]:
    """Two kinds of prompts in words; takes a theory run's config or its summary."""
    a, b = config["beta"]
    mixed = f"Beta({a:.4g}, {b:.4g}), mean {a / (a + b):.3g}"
    return {"homogeneous": f"all prompts p = {config['hit_rate']:.3g}", "beta": mixed}


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(box=MARKDOWN, title=title)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _regimes(summary: dict[str, Any]) -> Table:
    title = f"regimes at G = {summary['group_size']}"
    table = _table(title, "prompts", "all-zero", "single-hit", "multi-hit", "all-hit")
    for kind, label in _labels(summary).items():
        table.add_row(label, *(f"{100 * share:.1f} %" for share in summary["regimes"][kind].values()))
    return table


def _learnable(summary: dict[str, Any]) -> Table:
    rows = summary["learnable"]
    table = _table("learnable groups, no repair", "prompts", *(f"G = {row['group_size']}" for row in rows))
    for kind, label in _labels(summary).items():
        table.add_row(label, *(f"{100 * row[kind]:.1f} %" for row in rows))
    return table


def _weights(summary: dict[str, Any]) -> Table:
    title = f"gradient weights at p = {summary['hit_rate']:.4g}, G = {summary['group_size']}"
    table = _table(title, "constructor", "w(p)")
    table.add_column("per")
    table.add_column("closed form")
    for name, row in summary["weights"].items():
        table.add_row(name, f"{row['weight']:.4g}", row["per"], escape(row["formula"]))
    return table


def _costs(summary: dict[str, Any]) -> Table:
    title = f"budgets (a group costs its rollouts + {summary['prompt_cost']:g})"
    cost = f"dapo: rollouts per kept group, G = {summary['group_size']}"
    table = _table(title, "prompts", cost, "best G for learnable groups")
    for kind, label in _labels(summary).items():
        table.add_row(label, f"{summary['rollouts_per_kept_group'][kind]:.1f}", str(summary["best_group_size"][kind]))
    return table


def _draw_weights(axis: Axes, curves: pl.DataFrame, config: dict[str, Any], per: dict[str, str]) -> None:
    lines = {name: _line(curves, "weight", "p", name) for name in config["constructors"]}
    groups = same_curves({name: (line[1],) for name, line in lines.items()})
    palette = colours(names[0] for names in groups)
    widths = np.linspace(2.8, 1.3, len(groups))  # the first the widest, so that lines that nearly coincide show both
    looks: set[tuple[str, str]] = set()
    for names, width in zip(groups, widths, strict=True):
        colour, style = palette[names[0]], _STYLES[per[names[0]]]
        style = ":" if (colour, style) in looks else style  # there are more constructors than colours
        looks.add((colour, style))
        axis.plot(*lines[names[0]], color=colour, linestyle=style, linewidth=width, label=", ".join(names))
    axis.axvline(config["hit_rate"], color="#999999", linewidth=0.8, zorder=0, label=f"p = {config['hit_rate']:.3g}")
    axis.set(xscale="log", yscale="log", xlabel="hit rate p", ylabel="weight w(p), expected gradient = w(p) grad p")
    axis.set_title(f"(a) gradient weights at G = {config['group_size']} (dashed: per group, dash-dot: per kept rollout)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3, fontsize=8, handlelength=3)


def _draw_learnable(axis: Axes, curves: pl.DataFrame, config: dict[str, Any]) -> None:
    for kind, label in _labels(config).items():
        sizes, fraction = _line(curves, f"learnable_{kind}", "group_size")
        colour, style = _KINDS[kind]
        axis.plot(sizes, 100 * fraction, color=colour, linestyle=style, label=label)
    axis.set(ylabel="learnable groups (%)", ylim=(0, 103), title="(b) learnable groups without repair")
    _over_group_size(axis)


def _draw_costs(axis: Axes, curves: pl.DataFrame, config: dict[str, Any]) -> None:
    for kind, label in _labels(config).items():
        colour, style = _KINDS[kind]
        axis.plot(*_line(curves, f"rollouts_per_kept_group_{kind}", "group_size"), color=colour, linestyle=style, label=label)
    sizes, _ = _line(curves, "learnable_homogeneous", "group_size")
    axis.plot(sizes, sizes, color="#999999", linewidth=0.8, label="G, every group learnable")
    axis.set(yscale="log", ylabel="rollouts", title="(c) rollouts drawn per learnable group (dapo's cost)")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _over_group_size(axis)


def _over_group_size(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("group size G")
    axis.axvline(_PAPER_GROUP, color="#999999", linewidth=0.8, linestyle=":", label="the paper's G = 32")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=1, fontsize=8)


def _line(curves: pl.DataFrame, curve: str, over: str, constructor: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    rows = curves.filter(pl.col("curve") == curve)
    if constructor is not None:
        rows = rows.filter(pl.col("constructor") == constructor)
    rows = rows.sort(over)
    return rows[over].to_numpy(), rows["value"].to_numpy()
