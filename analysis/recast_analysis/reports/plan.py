"""How many worlds and held-out prompts a comparison needs, from the scatter over the worlds of a finished one."""

from pathlib import Path
from typing import Any

import numpy as np

from recast_analysis.measures.budget_curves import Curves, gain_values
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.metric_names import IN_NATS
from recast_analysis.measures.power import smallest_effect, worlds_needed
from recast_analysis.reports.report import Report, Table

_WORLDS = (5, 10, 20, 40)
_FIRST_HALF = "_first_half"  # as recast_sim.world.evaluation names them
_NOTE = (
    "Differences of final scores in the same worlds, as the comparison's tables give them: relative, or in nats. Scatter: "
    "their standard deviation over {worlds} worlds of a setting (mean variance over settings). Prompts: the part of that "
    "variance that is the chance of the {prompts} held-out prompts, by the difference between two halves of them; more prompts "
    "take from it, and from nothing else. Worlds: for a difference of {effect:g} with a power of 80 %, two-sided at 5 %, at as "
    "many prompts, and at four times as many. The scatter is an estimate itself: with few worlds plan for more."
)


def report(root: Path, effect: float, against: str) -> Report:
    """A row for each metric and method: scatter, worlds needed for the effect, and what some numbers of worlds can see.

    Raises:
        RunError: no finished comparison there.
        ValueError: fewer than two worlds, or no such method.
    """
    found = Comparison.read(root / "methods")
    if against not in found.methods:
        raise ValueError(f"against: {against!r} is not among the methods of {root}: {', '.join(found.methods)}")
    rows = [
        {"metric": metric, "method": method, "against": against, **_planned(found, metric, method, against, effect)}
        for metric in found.metrics
        for method in found.methods
        if method != against
    ]
    seen, prompts = (
        [f"seen by {n}" for n in _WORLDS],
        int(found.worlds_with("heldout_prompts")["heldout_prompts"].to_numpy().max()),
    )
    wanted = (f"worlds for {effect:g}", f"with {4 * prompts} prompts")
    header = ("metric", "method", f"scatter vs {against}", "prompts", *wanted, *seen)
    cells = [
        (
            row["metric"],
            row["method"],
            _number(row["scatter"], row["metric"]),
            "" if row["prompt_share"] is None else f"{100 * row['prompt_share']:.0f} %",
            *(_count(row[key]) for key in ("worlds", "worlds_at_four_times_the_prompts")),
            *(_number(row["smallest_effects"][str(n)], row["metric"]) for n in _WORLDS),
        )
        for row in rows
    ]
    table = Table("worlds that a comparison needs", header, cells, words=("metric", "method"))
    note = _NOTE.format(worlds=found.reported_worlds.height // len(found.settings), effect=effect, prompts=prompts)
    return Report({"effect": effect, "heldout_prompts": prompts, "rows": rows, "run": str(root)}, (table, note))


def _planned(found: Comparison, metric: str, method: str, against: str, effect: float) -> dict[str, Any]:
    variances, of_prompts = [], []
    for setting in found.settings:
        ours, theirs = (found.curves(setting, name, metric) for name in (method, against))
        if len(ours.finals_S) < 2:
            raise ValueError(f"worlds: setting {setting!r} has one; their scatter needs two or more")
        variances.append(gain_values(metric, ours.finals_S, theirs.finals_S).var(ddof=1))
        of_prompts.append(_prompt_variance(found, setting, metric, method, against))
    scatter = float(np.mean(variances)) ** 0.5
    if scatter == 0:
        same = {"prompt_share": None, "worlds": 2, "worlds_at_four_times_the_prompts": 2}
        return {"scatter": 0.0, **same, "smallest_effects": {str(n): 0.0 for n in _WORLDS}}
    known = [value for value in of_prompts if value is not None]
    share = min(1.0, float(np.mean(known)) / scatter**2) if known else None
    less = None if share is None else scatter * (1 - 0.75 * share) ** 0.5
    return {
        "scatter": scatter,
        "prompt_share": share,
        "worlds": worlds_needed(effect, scatter),
        "worlds_at_four_times_the_prompts": None if less is None else worlds_needed(effect, less),
        "smallest_effects": {str(n): smallest_effect(scatter, n) for n in _WORLDS},
    }


def _prompt_variance(found: Comparison, setting: str, metric: str, method: str, against: str) -> float | None:
    """Variance of a world's difference that its held-out prompts' chance makes: a quarter of the mean square of the difference
    between their two halves. None for a metric that is not measured by halves."""
    frames = [found.frames(setting, name, metric) for name in (method, against)]
    if f"{metric}{_FIRST_HALF}" not in next(iter(frames[0].values())).columns:
        return None
    wholes, firsts = ([Curves.of(own, column).finals_S for own in frames] for column in (metric, f"{metric}{_FIRST_HALF}"))
    seconds = [2 * whole - first for whole, first in zip(wholes, firsts, strict=True)]
    apart_S = gain_values(metric, *firsts) - gain_values(metric, *seconds)
    return float((apart_S**2).mean()) / 4


def _count(worlds: int | None) -> str:
    return "over 100,000" if worlds is None else str(worlds)


def _number(value: float, metric: str) -> str:
    return f"{value:.3f} nats" if metric in IN_NATS else f"{100 * value:.1f} %"
