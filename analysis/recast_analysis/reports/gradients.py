"""Report of `recast-sim gradients` from its folder alone."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.reading_aids import GREY, better, foremost, others
from recast_analysis.drawing.style import INK, REGIME_COLOURS, Drawn, apply_style, colours, plain_powers
from recast_analysis.reports.pieces.updates import NOTE, parts_table, updates_figure, updates_table
from recast_analysis.reports.report import Report, Table
from recast_sim.bounded import read_json_file
from recast_sim.runs import RunError

_LEVEL_COLOURS = ("#004488", "#bb5566", "#ddaa33", "#66ccee", "#aa3377", "#999999")
_NOTE = (
    "First {prompts} train prompts, {sampler} rollouts. cosine: between the expected estimate E and the exact gradient g of "
    "sampled Pass@1; residual: what the best positive rescaling of E leaves of g. variance: of one group's estimate, over "
    "||E||^2; within: its share from sampling, the rest is between prompts. SNR: ||E||^2 over variance. +- is one jackknife "
    "standard error of a Monte-Carlo figure; figures without it are exact."
)
Row = dict[str, Any]


def report(root: Path) -> Report:
    """Tables at the run's group size, variance and cosine over all group sizes, and the four-panel figure.

    Raises:
        RunError: the folder holds no such run.
    """
    file = root / "gradients.json"
    if not file.exists():
        raise RunError(f"{root}: gradients.json is missing; `recast-sim gradients` writes it")
    result = read_json_file(file, RunError)
    rows = _at(result, result["group_size"])
    tables = (
        updates_table(rows, f"(a) what an update does, {_size(result)}: cools, and gains by cooling / by learning"),
        NOTE,
        _main_table(result, rows),
        _regime_table(rows),
        _level_table(rows),
        parts_table(rows, "(e) where it comes from: cools / learns by regime as sampled, cools by level"),
        _size_table(result),
    )
    where = f"At the base policy, {result['sampler']} rollouts, {_size(result)}, {result['prompts']} prompts, one world"
    known = any(row["parts"] for row in rows)
    return Report(
        result,
        (*tables, _NOTE.format(**result)),
        lambda: [*([updates_figure(rows, where)] if known else []), _figure(result)],
    )


def _figure(result: dict[str, Any]) -> Drawn:
    apply_style()
    rows = _at(result, result["group_size"])
    names = [row["constructor"] for row in rows]
    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    shown = foremost(names)
    palette = colours(shown)
    _draw_curves(axes[0, 0], result, names, palette, "variance")
    axes[0, 0].set(yscale="log", ylabel="relative variance of one group", title="(a) variance")
    better(axes[0, 0], "down")
    plain_powers(axes[0, 0].yaxis)
    _draw_curves(axes[0, 1], result, names, palette, "cosine")
    axes[0, 1].set(ylabel="cosine to the exact gradient", title="(b) bias")
    better(axes[0, 1], "up")
    _draw_shares(axes[1, 0], rows, "by_regime", "projection", dict(REGIME_COLOURS))
    axes[1, 0].set(
        xlabel="share of the projection on the exact gradient (%), left: against it", title=f"(c) by regime, {_size(result)}"
    )
    _draw_levels(axes[1, 1], rows)
    axes[1, 1].set(xlabel="share of the squared norm (%); numbers: cosine within", title=f"(d) by level, {_size(result)}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncol=min(6, len(names)))
    words = (
        f"At the base policy, {result['sampler']} rollouts, {result['prompts']} prompts, one world; bars of (a) and (b): one "
        f"jackknife standard error where a figure was sampled, the others are exact.{others(names, shown)}"
    )
    return Drawn("figure", "Variance and bias of gradient estimates", figure, words)


def _at(result: dict[str, Any], size: int) -> list[Row]:
    return [row for row in result["reports"] if row["group_size"] == size]


def _size(result: dict[str, Any]) -> str:
    return f"G = {result['group_size']}"


def _main_table(result: dict[str, Any], rows: list[Row]) -> Table:
    header = ["constructor", "learnable", "rows", "cosine", "residual", "best scale", "variance", "within", "SNR of a group"]
    cells = [
        (
            row["constructor"],
            f"{100 * row['learnable']:.1f} %",
            f"{row['update_width']:.2f}",
            _number(row["cosine"], ".4f", row["cosine_se"]),
            _number(row["residual"], ".3f"),
            _number(row["scale"], ".3g"),
            _number(row["variance"], ".1f", row["variance_se"]),
            _percent(row["within"]),
            _number(row["snr"], ".2e"),
            _number(row["snr_per_rollout"], ".3f", scale=1000) if row["rollouts_per_group"] else "no rollouts",
        )
        for row in rows
    ]
    return Table(f"(b) estimates of one group, {_size(result)}", [*header, "SNR of 1,000 rollouts"], cells)


def _regime_table(rows: list[Row]) -> Table:
    shown = [name for name in REGIME_COLOURS if any(row["by_regime"][name]["groups"] > 1e-4 for row in rows)]
    header = [f"{name.replace('_', '-')}, {_percent(rows[0]['by_regime'][name]['groups'])} of groups" for name in shown]
    cells = []
    for row in rows:
        parts = (row["by_regime"][name] for name in shown)
        cells.append((row["constructor"], *(_triple(part) if part["square"] else "" for part in parts)))
    title = "(c) by regime as sampled: share of the projection on g (minus: against it) / cosine / share of E||estimate||^2"
    return Table(title, ("constructor", *header), cells)


def _level_table(rows: list[Row]) -> Table:
    levels = list(rows[0]["by_level"])
    cells = [("exact gradient", *(f"{_percent(rows[0]['by_level'][level]['exact'])} / 1" for level in levels))]
    for row in rows:
        parts = (row["by_level"][level] for level in levels)
        pairs = (f"{_percent(part['square'])} / {_number(part['cosine'], '.3f')}" for part in parts)
        cells.append((row["constructor"], *pairs))
    title = "(d) by level of the SID: share of ||E||^2 / cosine to g within the level"
    return Table(title, ("constructor", *levels), cells)


def _size_table(result: dict[str, Any]) -> Table:
    sizes = sorted({row["group_size"] for row in result["reports"]})
    found = {(row["constructor"], row["group_size"]): row for row in result["reports"]}
    names = dict.fromkeys(row["constructor"] for row in result["reports"])
    cells = [(name, *(_size_cell(found[name, size]) for size in sizes)) for name in names]
    title = "(f) over group sizes: variance / cosine / SNR of 1,000 rollouts"
    return Table(title, ("constructor", *(f"G = {size}" for size in sizes)), cells)


def _size_cell(row: Row) -> str:
    snr = _number(row["snr_per_rollout"], ".3f", scale=1000) if row["rollouts_per_group"] else "-"
    return f"{_number(row['variance'], '.0f')} / {_number(row['cosine'], '.3f')} / {snr}"


def _triple(part: dict[str, Any]) -> str:
    return f"{_percent(part['projection'])} / {_number(part['cosine'], '.3f')} / {_percent(part['square'])}"


def _number(value: float | None, digits: str, error: float | None = None, scale: float = 1) -> str:
    if value is None:
        return "unknown"
    return format(scale * value, digits) + (f" +- {error:.2g}" if error else "")


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value if abs(value) >= 5e-4 else 0.0:.1f} %"


def _draw_curves(axis: Axes, result: dict[str, Any], names: list[str], palette: dict[str, str], field: str) -> None:
    sizes = sorted({row["group_size"] for row in result["reports"]})
    for name in names:
        rows = sorted((r for r in result["reports"] if r["constructor"] == name), key=lambda row: row["group_size"])
        value = np.array([np.nan if row[field] is None else row[field] for row in rows])
        error = np.array([row[f"{field}_se"] or 0.0 for row in rows])
        style: dict[str, Any] = {"color": palette.get(name, GREY), "marker": look(name).marker, "linestyle": look(name).dash}
        style |= {"label": name, "zorder": 3} if name in palette else {"linewidth": 1}
        axis.errorbar([row["group_size"] for row in rows], value, yerr=error, markersize=5, capsize=2, **style)
    axis.set(xscale="log", xlabel="group size G")
    axis.xaxis.set_major_locator(FixedLocator(sizes))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())


def _draw_shares(axis: Axes, rows: list[Row], split: str, field: str, palette: dict[str, str]) -> None:
    """Stacked bars a constructor: positive shares to the right of 0, negative ones to the left."""
    names = [row["constructor"] for row in rows][::-1]
    right, left = np.zeros(len(rows)), np.zeros(len(rows))
    for part, colour in palette.items():
        width = np.array([100 * (row[split][part][field] or 0.0) for row in rows])[::-1]
        axis.barh(names, width, left=np.where(width < 0, left, right), color=colour, label=part.replace("_", "-"))
        right, left = right + width.clip(min=0), left + width.clip(max=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=len(palette))


def _draw_levels(axis: Axes, rows: list[Row]) -> None:
    palette = dict[str, str](zip(rows[0]["by_level"], _LEVEL_COLOURS * 4, strict=False))
    exact = {part: {"square": value["exact"], "cosine": None} for part, value in rows[0]["by_level"].items()}
    shown = [{"constructor": "exact gradient", "by_level": exact}, *rows]
    _draw_shares(axis, shown, "by_level", "square", palette)
    for height, row in enumerate(shown[::-1]):
        at = 0.0
        for part in palette:
            width = 100 * (row["by_level"][part]["square"] or 0.0)
            cosine = row["by_level"][part]["cosine"]
            if width > 7 and cosine is not None:
                ink = "white" if sum(to_rgb(palette[part])) < 1.5 else "black"
                axis.text(at + width / 2, height, f"{cosine:.2f}", ha="center", va="center", color=ink, fontsize=7)
            at += width
