"""How many worlds a comparison needs, from the scatter over the worlds of a finished one."""

from pathlib import Path
from typing import Any

import numpy as np

from analysis.measures.budget_curves import gain_values
from analysis.measures.comparison import Comparison
from analysis.measures.metric_names import IN_NATS
from analysis.measures.power import smallest_effect, worlds_needed
from analysis.reports.report import Report, Table

_WORLDS = (5, 10, 20, 40)
_NOTE = (
    "Differences of final scores in the same worlds, as the comparison's tables give them: relative, or in nats. Scatter: "
    "their standard deviation over {worlds} worlds of a setting (mean variance over settings). Worlds: for a difference of "
    "{effect:g} with a power of 80 %, two-sided at 5 %. The scatter is an estimate itself: with few worlds plan for more."
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
    seen = [f"seen by {n}" for n in _WORLDS]
    header = ("metric", "method", f"scatter vs {against}", f"worlds for {effect:g}", *seen)
    cells = [
        (
            row["metric"],
            row["method"],
            _number(row["scatter"], row["metric"]),
            "over 100,000" if row["worlds"] is None else str(row["worlds"]),
            *(_number(row["smallest_effects"][str(n)], row["metric"]) for n in _WORLDS),
        )
        for row in rows
    ]
    table = Table("worlds that a comparison needs", header, cells, words=("metric", "method"))
    note = _NOTE.format(worlds=found.reported_worlds.height // len(found.settings), effect=effect)
    return Report({"effect": effect, "rows": rows, "run": str(root)}, (table, note))


def _planned(found: Comparison, metric: str, method: str, against: str, effect: float) -> dict[str, Any]:
    variances = []
    for setting in found.settings:
        ours, theirs = (found.curves(setting, name, metric).finals_S for name in (method, against))
        if len(ours) < 2:
            raise ValueError(f"worlds: setting {setting!r} has one; their scatter needs two or more")
        variances.append(gain_values(metric, ours, theirs).var(ddof=1))
    scatter = float(np.mean(variances)) ** 0.5
    if scatter == 0:
        return {"scatter": 0.0, "worlds": 2, "smallest_effects": {str(n): 0.0 for n in _WORLDS}}
    effects = {str(n): smallest_effect(scatter, n) for n in _WORLDS}
    return {"scatter": scatter, "worlds": worlds_needed(effect, scatter), "smallest_effects": effects}


def _number(value: float, metric: str) -> str:
    return f"{value:.3f} nats" if metric in IN_NATS else f"{100 * value:.1f} %"
