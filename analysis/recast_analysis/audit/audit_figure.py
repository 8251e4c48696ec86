"""The audit's figure: regimes over training, hits per group, other group sizes, the actor's four corners."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recast_analysis.audit.figures_of_audit import REGIMES, groups_in_words
from recast_analysis.drawing.style import REGIME_COLOURS, Drawn, apply_style

_POINTS = 200  # along the axis of steps at most; more are pooled
_CORNERS = ("all rows,\nprompt repeated", "all rows,\nprompt shared", "2 rows,\nprompt repeated", "2 rows,\nprompt shared")


def audit_figure(summary: Mapping[str, Any], steps: pl.DataFrame) -> Drawn:
    """The four panels; one whose figures the dump does not give says so."""
    apply_style()
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    _draw_regimes(axes[0, 0], steps)
    fit = summary["fits"]["all steps"]
    if "refused" in fit:
        for axis, title in ((axes[0, 1], "(b) hits per group"), (axes[1, 0], "(c) other group sizes")):
            _say(axis, title, f"no fit: {fit['refused']}")
    else:
        _draw_hits(axes[0, 1], fit)
        _draw_sizes(axes[1, 0], fit, summary)
    if summary["actor"] is None:
        _say(axes[1, 1], "(d) the actor's four corners", "the dump gives no lengths of prompts and responses")
    else:
        _draw_corners(axes[1, 1], summary)
    dump = summary["dump"]
    caption = (
        f"{dump['form']}: {dump['rows']:,} rollouts, {groups_in_words(dump)}, "
        f"{dump['steps']:,} steps; a hit is {dump['reward']} > {dump['hit_above']:g}"
    )
    return Drawn("figure", "Audit of dumped rollouts", figure, caption)


def _draw_regimes(axis: Axes, steps: pl.DataFrame) -> None:
    weights = pl.col("groups")
    pooled = (
        steps.with_row_index("place")
        .group_by(pl.col("place") * min(_POINTS, steps.height) // steps.height, maintain_order=True)
        .agg(pl.col("step").mean(), *((pl.col(name) * weights).sum() / weights.sum() for name in REGIMES))
    )
    shares = [100 * pooled[name].to_numpy() for name in REGIMES]
    colours = [REGIME_COLOURS[name] for name in REGIMES]
    labels = [name.replace("_", "-") for name in REGIMES]
    if pooled.height == 1:
        axis.bar([str(steps["step"][0])], shares[0], color=colours[0], label=labels[0], width=0.4)
        for place in range(1, len(shares)):
            below = np.sum(shares[:place], 0)
            axis.bar([str(steps["step"][0])], shares[place], bottom=below, color=colours[place], label=labels[place], width=0.4)
    else:
        axis.stackplot(pooled["step"].to_numpy(), shares, colors=colours, labels=labels)
        axis.set_xlim(pooled["step"].to_numpy().min(), pooled["step"].to_numpy().max())
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="step", ylabel="share of groups (%)", ylim=(0, 100), title="(a) regimes over training")
    axis.legend(frameon=True, fontsize=8, loc="lower right")


def _draw_hits(axis: Axes, fit: Mapping[str, Any]) -> None:
    observed, expected = np.array(fit["observed_K"]), np.array(fit["expected_K"])
    K = np.arange(len(observed))
    seen = observed > 0
    axis.bar(K[seen], observed[seen], color="#88aacc", label="seen")
    shown = expected >= 0.1
    axis.plot(K[shown], expected[shown], color="#cc3311", marker="o", markersize=3, linewidth=1, label="Beta-binomial fit")
    p = "" if fit["p_value"] is None else f", p = {fit['p_value']:.2g}"
    axis.set(yscale="log", xlabel="hits in a group, K", ylabel="groups", title=f"(b) hits per group, all steps{p}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlim(-0.7, max(K[seen].max(), K[shown].max() if shown.any() else 0) + 0.7)
    axis.legend(frameon=False, fontsize=8)


def _draw_sizes(axis: Axes, fit: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    sizes = [row["group_size"] for row in fit["sizes"]]
    for key, colour, label in (("all_zero", "#666666", "all-zero"), ("learnable", "#cc3311", "learnable, no repair")):
        low, high = (100 * np.array([row[f"{key}_interval"][end] for row in fit["sizes"]]) for end in (0, 1))
        axis.plot(sizes, [100 * row[key] for row in fit["sizes"]], color=colour, marker="o", markersize=3, label=label)
        axis.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
    own = summary["dump"]["group_size"]
    seen = (100 * summary["regimes"]["all_zero"], 100 * summary["learnable"]["before"])
    axis.scatter([own, own], seen, color="black", marker="x", zorder=3, label="seen in this dump")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set(
        xlabel="group size G", ylabel="share of groups (%)", ylim=(0, 103), title="(c) other group sizes: fit, 95 % interval"
    )
    axis.legend(frameon=False, fontsize=8)


def _draw_corners(axis: Axes, summary: Mapping[str, Any]) -> None:
    actor, unit = summary["actor"], summary["dump"]["length_unit"]
    lengths = np.array(list(actor["lengths"].values()))
    bars = axis.barh(_CORNERS, lengths, color=["#bbbbbb", "#88aacc", "#ee9944", "#228833"])
    axis.bar_label(bars, [f" {factor:.1f}x" if factor else " nothing" for factor in actor["factors"].values()], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * lengths.max())
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set(xlabel=f"{unit} that the actor reads (x: saved against the first)", title="(d) the actor's four corners")


def _say(axis: Axes, title: str, words: str) -> None:
    axis.set_axis_off()
    axis.set_title(title)
    axis.text(0.5, 0.5, words, ha="center", va="center", wrap=True, fontsize=9)
