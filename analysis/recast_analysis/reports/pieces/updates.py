"""What a constructor's expected update does at the base policy: how much it cools, and what the rest learns.

A row is a report of `recast_sim.exact` as JSON; `parts` is None where the sample does not tell the update from nothing.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from recast_analysis.drawing.style import INK, REGIME_COLOURS, Drawn, apply_style
from recast_analysis.reports.report import Table

Row = dict[str, Any]
_GOALS = {
    "soft_greedy": "soft greedy",
    "log_likelihood": "log-likelihood",
    "reciprocal_rank": "reciprocal rank",
    "pass_at_1": "sampled Pass@1",
}
_SHARPENED, _LEARNED, _COOLS = "#ddaa33", "#004488", "#bb5566"
NOTE = (
    "cools: cosine of the expected update and the temperature direction, in the Fisher metric: at +1 it only cools the policy, "
    "at -1 it only heats it. Pairs: first-order gain of a held-out objective by cooling / by all else (learning), in units of "
    "what its exact gradient gains by changing the policy as much. Soft greedy: sampled Pass@1 of pi^8 renormalised, a smooth "
    "stand-in for greedy Pass@1."
)


def updates_table(rows: Sequence[Row], title: str) -> Table:
    """A row a constructor: how much it cools, and the gain of each held-out objective by cooling and by the rest."""
    cells = [(row["constructor"], _signed(row, "cooling"), *(_pair(row, goal) for goal in _GOALS)) for row in rows]
    return Table(title, ("constructor", "cools", *_GOALS.values()), cells)


def parts_table(rows: Sequence[Row], title: str) -> Table:
    """Where cooling and learning come from: regimes as sampled (cools / learns), then levels (cools)."""
    shown = [name for name in REGIME_COLOURS if any(row["by_regime"][name]["groups"] > 1e-4 for row in rows)]
    levels = max((len(row["parts"]["cooling_by_level"]) for row in rows if row["parts"]), default=0)
    cells = []
    for row in rows:
        if row["parts"] is None:
            cells.append((row["constructor"], *["unknown"] * (len(shown) + levels)))
            continue
        learned = row["parts"]["gains"]["heldout soft_greedy"]["learned_by_regime"]
        of_regime = [f"{row['parts']['cooling_by_regime'][name]:+.2f} / {learned[name]:+.2f}" for name in shown]
        cells.append((row["constructor"], *of_regime, *(f"{part:+.2f}" for part in row["parts"]["cooling_by_level"])))
    header = ("constructor", *(name.replace("_", "-") for name in shown), *(f"level {i + 1}" for i in range(levels)))
    return Table(title, header, cells)


def updates_figure(rows: Sequence[Row], where: str) -> Drawn:
    """Left: how much each update cools. Right: gain of held-out soft-greedy Pass@1 by cooling, and by the rest."""
    apply_style()
    known = sorted(
        (row for row in rows if row["parts"]), key=lambda row: row["parts"]["gains"]["heldout soft_greedy"]["learned"]
    )
    names, place = [row["constructor"] for row in known], np.arange(len(known))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 1.6 + 0.3 * len(known)), sharey=True, layout="constrained")
    left.barh(place, [row["parts"]["cooling"] for row in known], color=_COOLS)
    left.set(xlim=(-1, 1), yticks=place, yticklabels=names, title="cools", xlabel="heats (-1) to cools (+1)")
    gains = [row["parts"]["gains"]["heldout soft_greedy"] for row in known]
    for key, shift, colour in (("learned", 0.2, _LEARNED), ("sharpened", -0.2, _SHARPENED)):
        label = "learned" if key == "learned" else "by cooling alone"
        right.barh(place + shift, [gain[key] for gain in gains], height=0.38, color=colour, label=label)
    right.set(title="learns", xlabel="gain of held-out soft-greedy Pass@1 (its exact gradient gains 1)")
    for axis in (left, right):
        axis.axvline(0, color=INK, linewidth=0.8)
    right.legend(loc="lower right", fontsize=8)
    return Drawn("cools-and-learns", "How much each constructor cools, and how much it learns", figure, f"{where}. {NOTE}")


def _signed(row: Row, key: str) -> str:
    return f"{row['parts'][key]:+.2f}" if row["parts"] else "unknown"


def _pair(row: Row, goal: str) -> str:
    if row["parts"] is None:
        return "unknown"
    gain = row["parts"]["gains"][f"heldout {goal}"]
    return f"{gain['sharpened']:+.2f} / {gain['learned']:+.2f}"
