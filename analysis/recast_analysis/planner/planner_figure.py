"""The planner's figure: groups at any size, signal to noise, prompts that have had a signal, prompts and seeds."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.planner.acting import Kind, Waiting
from recast_analysis.planner.hit_rates import Bounded, Estimate
from recast_analysis.planner.next_run import NextRun

_ZERO, _LEARNABLE = "#666666", "#cc3311"
_LINES = ((False, "needs a hit and a miss", "#0173b2"), (True, "all but all-hit groups", "#de8f05"))
_BUDGETS = 25  # points of a line


def planner_figure(planned: NextRun) -> Drawn:
    """The four panels; one that the log says nothing of says so."""
    apply_style()
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    _draw_sizes(axes[0, 0], planned)
    _draw_noise(axes[0, 1], planned)
    _draw_prompts(axes[1, 0], planned)
    _draw_study(axes[1, 1], planned)
    intervals = "bounds for any distribution of hit rates" if isinstance(planned.rates, Bounded) else "95 % intervals"
    return Drawn("plan", "The next run, from a log", figure, f"{planned.log.source}. Bands: {intervals}.")


def _draw_sizes(axis: Axes, planned: NextRun) -> None:
    sizes = [plan.group_size for plan in planned.sizes]
    for colour, label, shares in (
        (_ZERO, "all-zero", [plan.all_zero for plan in planned.sizes]),
        (_LEARNABLE, "learnable", [plan.learnable for plan in planned.sizes]),
    ):
        _band(axis, sizes, shares, colour, label, 100)
    for place, colour in ((0, _ZERO), (1, _LEARNABLE)):
        known = [(plan.group_size, plan.counted[place].value) for plan in planned.sizes if plan.counted is not None]
        label = "counted, without a model" if place == 0 else None
        axis.plot([G for G, _ in known], [100 * (value or 0) for _, value in known], "x", color=colour, label=label)
    axis.set(ylabel="share of groups (%)", ylim=(0, 103), title="(a) groups at any size")
    _of_sizes(axis)
    axis.legend(fontsize=8)


def _draw_noise(axis: Axes, planned: NextRun) -> None:
    title = "(b) signal to noise of the budget"
    known = [(plan.group_size, plan.signal_to_noise) for plan in planned.sizes if plan.signal_to_noise is not None]
    if not known:
        _say(axis, title, "cannot be told without a distribution of hit rates")
        return
    _band(axis, [G for G, _ in known], [ratio for _, ratio in known], "#0173b2", f"{planned.question.rollouts:,} rollouts", 1)
    if planned.whole is not None and planned.whole <= known[-1][0]:
        axis.axvline(planned.whole, color=INK, linewidth=0.8, linestyle="--", label=f"best G = {planned.whole}")
    axis.set(ylabel="mean / standard deviation", title=title)
    axis.set_ylim(bottom=0)
    _of_sizes(axis)
    axis.legend(fontsize=8)


def _draw_prompts(axis: Axes, planned: NextRun) -> None:
    title = f"(c) prompts that have had a signal, G = {planned.acting_size}"
    if isinstance(planned.rates, Bounded):
        _say(axis, title, "cannot be told without a distribution of hit rates")
        return
    G = planned.acting_size
    each = G * np.unique(np.round(np.geomspace(1, 1000, _BUDGETS)))
    for zero, label, colour in _LINES:
        waiting = Waiting(Kind((), zero, all_hit=False, anchors=False, redraws=False, rollouts=True), planned.rates, G)
        _band(axis, each, [waiting.reached(float(rollouts)) for rollouts in each], colour, label, 100)
    axis.set(xlabel="rollouts of each prompt", xscale="log", ylabel="share of prompts (%)", ylim=(0, 103), title=title)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.legend(fontsize=8)


def _draw_study(axis: Axes, planned: NextRun) -> None:
    title = "(d) prompts and seeds for 80 % power"
    if isinstance(planned.study, str):
        _say(axis, title, planned.study)
        return
    found = planned.study
    rows = [row for row in found.rows if np.isfinite(row.prompts.high)]
    if not rows:
        _say(axis, title, "no number of prompts is enough for so few seeds")
        return
    scatter = found.scatter and found.scatter.estimate.value
    several = "several, if seeds do not scatter" if scatter is None else f"several, scatter {100 * scatter:.3g} %"
    for label, some, marker in (
        ("one: two checkpoints, no word on others", [row for row in rows if row.seeds == 1], "s"),
        (several, [row for row in rows if row.seeds > 1], "o-"),
    ):
        middle = np.array([row.prompts.value for row in some], dtype=float)
        ends = np.abs(np.array([[getattr(row.prompts, end) for row in some] for end in ("low", "high")]) - middle)
        colour = "#0173b2" if marker == "o-" else "#949494"
        axis.errorbar([row.seeds for row in some], middle, ends, fmt=marker, color=colour, capsize=3, markersize=4, label=label)
    axis.set_xticks([row.seeds for row in rows])
    axis.set(xlabel="seeds", ylabel="prompts", yscale="log", title=f"{title}, effect {100 * found.effect:g} %")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.legend(fontsize=8)


def _band(axis: Axes, x: object, shares: list[Estimate], colour: str, label: str, scale: float) -> None:
    """The figure with its interval; of bounds the band alone."""
    low, high = (scale * np.array([getattr(share, end) for share in shares]) for end in ("low", "high"))
    axis.fill_between(np.asarray(x), low, high, color=colour, alpha=0.2, linewidth=0)
    if all(share.value is not None for share in shares):
        values = scale * np.array([share.value for share in shares], dtype=float)
        axis.plot(np.asarray(x), values, color=colour, marker="o", markersize=3, label=label)
    else:
        axis.plot([], [], color=colour, label=label)


def _of_sizes(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("group size G")


def _say(axis: Axes, title: str, words: str) -> None:
    axis.set_axis_off()
    axis.set_title(title)
    axis.text(0.5, 0.5, words, ha="center", va="center", wrap=True, fontsize=9)
