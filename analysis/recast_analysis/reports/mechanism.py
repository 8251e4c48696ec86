"""The paper's mechanism figures from the training runs of any run folder, simulated or real.

Regimes, repair, gradients, budget and Pass@k are one kind of figure: a panel a quantity and starting point, a line a method, a
band over its seeds. Axes: S seeds, E rows of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.panels import draw_band, same_curves, seeds_text, stacked
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours, plain_powers
from recast_analysis.measures.trajectories import Trajectory, by_method, by_setting

_SMOOTH = 10  # steps at most in a running mean
_WIDEST = 3  # panels in a row
Line = tuple[NDArray[np.float64], NDArray[np.float64]]  # x (E,) and values (S, E)


@dataclass(frozen=True)
class Quantity:
    """A logged column and how to draw it."""

    column: str
    label: str
    percent: bool = False
    log: bool = False


@dataclass(frozen=True)
class Mechanism:
    """One figure: quantities over training steps (running means), or over generated rollouts what the evaluations changed.

    A score is drawn as its change from the same seed's first evaluation: seeds start further apart than training takes them.
    """

    name: str
    title: str
    quantities: tuple[Quantity, ...]
    over_rollouts: bool = False
    note: str = ""


def _share(name: str) -> Quantity:
    return Quantity(f"before_{name}", f"{name.replace('_', '-')} groups (%)", percent=True)


MECHANISMS = (
    Mechanism(
        "regimes", "Regimes of groups over training, before repair", tuple(map(_share, ("all_zero", "single_hit", "multi_hit")))
    ),
    Mechanism("repair", "Groups given an anchor", (Quantity("repaired", "repaired groups (%)", percent=True),)),
    Mechanism(
        "gradients",
        "Gradient norm and variance over training",
        (
            Quantity("gradient_norm", "norm of a step's gradient", log=True),
            Quantity("gradient_variance", "variance between groups", log=True),
        ),
        note="The variance is there where it was probed (rl.probe_every).",
    ),
    Mechanism(
        "budget",
        "Pass@1 over generated rollouts, change from the start",
        (Quantity("pass_at_1_sampled", "sampled Pass@1"), Quantity("pass_at_1_greedy", "greedy Pass@1")),
        over_rollouts=True,
    ),
    Mechanism(
        "pass-at-k",
        "Pass@k over generated rollouts, change from the start",
        (
            Quantity("pass@10", "Pass@10, ranking the catalog"),
            Quantity("pass_at_k_beam", "Pass@10, the ten best items"),
            Quantity("pass_at_k_iid", "Pass@10, ten independent draws"),
        ),
        over_rollouts=True,
    ),
)


def mechanism_figure(mechanism: Mechanism, runs: Sequence[Trajectory]) -> Drawn | str:
    """The figure, or why it is left out."""
    shown = [q for q in mechanism.quantities if any(len(_rows(run, mechanism, q)) for run in runs)]
    if not shown:
        wanted = ", ".join(q.column for q in mechanism.quantities)
        return f"{mechanism.title}: no run logged any of {wanted}"
    apply_style()
    settings = by_setting(runs)
    names = list(dict.fromkeys(run.method for run in runs))
    cells = {(setting, q.column): _lines(mechanism, q, own, names) for setting, own in settings.items() for q in shown}
    wide = len(shown) if len(shown) > 1 else min(_WIDEST, len(settings))
    high = -(-len(cells) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(0.6 + 3.5 * wide, 0.6 + 3 * high), squeeze=False, layout="constrained")
    groups = same_curves({name: [array for lines in cells.values() for array in lines[name]] for name in names})
    for axis, ((setting, _), lines), quantity in zip(axes.flat, cells.items(), list(shown) * len(settings), strict=False):
        _draw_panel(axis, mechanism, quantity, lines, groups)
        axis.set_title(f"{setting}\n{quantity.label}" if mechanism.over_rollouts else setting)
    for axis in axes.flat[len(cells) :]:
        axis.set_axis_off()
    handles = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=max(2, wide), fontsize=8)
    return Drawn(mechanism.name, mechanism.title, figure, _caption(mechanism, runs))


def _lines(mechanism: Mechanism, quantity: Quantity, runs: Sequence[Trajectory], names: Sequence[str]) -> dict[str, Line]:
    """Each method's line of a panel, without seeds where it did not log the quantity or a kill came before it."""
    lines, methods = {}, by_method(runs)
    for name in names:
        own = methods.get(name, [])
        frames = [rows for run in own if len(rows := _rows(run, mechanism, quantity))]
        if not frames:
            lines[name] = (np.zeros(0), np.zeros((0, 0)))
            continue
        smooth = 1 if mechanism.over_rollouts else max(1, min(_SMOOTH, min(map(len, frames)) // 5))
        x_E = _spent(own[0], frames, runs) if mechanism.over_rollouts else stacked(frames, "step", smooth).mean(0)
        values_SE = stacked(frames, quantity.column, smooth)
        if mechanism.over_rollouts:
            values_SE = 100 * (values_SE - values_SE[:, :1])
        lines[name] = (x_E, (100 if quantity.percent else 1) * values_SE)
    return lines


def _draw_panel(
    axis: Axes, mechanism: Mechanism, quantity: Quantity, lines: dict[str, Line], groups: Sequence[Sequence[str]]
) -> None:
    palette = colours(lines)
    for names in groups:
        x_E, values_SE = lines[names[0]]
        if len(values_SE):
            draw_band(axis, x_E, values_SE, palette[names[0]], " = ".join(names), look(names[0]).dash)
    if mechanism.over_rollouts:
        axis.set(xlabel="generated rollouts (thousands)", ylabel="change (percentage points)")
        axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        return
    axis.set(xlabel="step", ylabel=quantity.label)
    if quantity.log and any((values_SE > 0).any() for _, values_SE in lines.values()):
        axis.set_yscale("log", nonpositive="mask")
        plain_powers(axis.yaxis)
    else:
        axis.set_ylim(0, None)


def _rows(run: Trajectory, mechanism: Mechanism, quantity: Quantity) -> pl.DataFrame:
    """The rows of a run that hold a quantity."""
    table = run.evals if mechanism.over_rollouts else run.steps
    return table.drop_nulls(quantity.column) if quantity.column in table.columns else pl.DataFrame()


def _spent(own: Trajectory, frames: Sequence[pl.DataFrame], runs: Sequence[Trajectory]) -> NDArray[np.float64]:
    """Thousands of rollouts at each evaluation; of a method that needs none, those that the others had drawn by that step."""
    other = next((run for run in runs if run.draws), None)
    if own.draws or other is None:
        return stacked(frames, "rollouts").mean(0) / 1000
    steps = stacked(frames, "step").mean(0)
    return np.interp(steps, other.evals["step"].to_numpy(), other.evals["rollouts"].to_numpy()) / 1000


def _caption(mechanism: Mechanism, runs: Sequence[Trajectory]) -> str:
    words = [f"{seeds_text(len({run.seed for run in runs}))}."]
    if mechanism.over_rollouts:
        words.append("Changes from the first evaluation, each seed's from its own.")
        if not all(run.draws for run in runs):
            words.append("Methods that need no rollouts are drawn over those that the others had by then.")
    else:
        words.append(f"Running means over a fifth of the rows, {_SMOOTH} at most.")
    return " ".join(filter(None, (*words, mechanism.note)))
