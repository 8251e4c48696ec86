"""Report of `recast-sim check` from its folder alone: one constructor, what it declares and what it does."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.panels import same_curves
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours, plain_powers
from recast_analysis.reports.pieces.updates import NOTE, updates_table
from recast_analysis.reports.report import Report, Table
from recast_sim.bounded import read_json_file
from recast_sim.runs import RunError

_VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: ""}
_WEIGHT = (
    "w(p), in the figure: the expected update of one group is w(p) grad p, measured on i.i.d. groups of each number of hits. "
    "Where it rises to the left it pulls hardest where hits are rare; where it is 0 a prompt teaches nothing."
)


def report(root: Path) -> Report:
    """Declarations with verdicts, what the update does in a calibrated world, cost, and the weight drawn.

    Raises:
        RunError: the folder holds no such run.
    """
    file = root / "check.json"
    if not file.exists():
        raise RunError(f"{root}: check.json is missing; `recast-sim check` writes it")
    found = read_json_file(file, RunError)
    name, size = found["constructor"], found["group_size"]
    rows = [(row["what"], row["declared"], row["found"], _VERDICTS[row["holds"]]) for row in found["findings"]]
    header = ("", "declared", "found", "")
    declared = Table(f"{name} ({found['source']}): what it declares", header, rows, words=header)
    updates = updates_table(found["updates"], f"what its update does at G = {size}: cools, and gains by cooling / by learning")
    return Report(found, (declared, updates, NOTE, _cost(found), _WEIGHT), lambda: [_figure(found)])


def _cost(found: dict[str, Any]) -> Table:
    cost, updates = found["cost"], {row["constructor"]: row for row in found["updates"]}
    rows = [
        (name, f"{spent:.2f}", f"{spent / cost['grpo']:.2f}", f"{updates[name]['update_width']:.2f}", _share(updates[name]))
        for name, spent in cost.items()
    ]
    header = ("", "ms for 1,024 groups", "of grpo's", "rows a group to the actor", "learnable groups")
    return Table("what it costs, and what it keeps", header, rows)


def _share(row: dict[str, Any]) -> str:
    return f"{100 * row['learnable']:.1f} %"


def _figure(found: dict[str, Any]) -> Drawn:
    apply_style()
    name, curves = found["constructor"], found["weights"]
    hit_rate = np.array(curves["hit_rate"])
    weights = {key: np.array(curve) for key, curve in curves.items() if key not in ("hit_rate", "closed form")}
    weights = {key: curve / (np.abs(curve).max() or 1.0) for key, curve in weights.items()}
    twins = same_curves({key: (curve,) for key, curve in weights.items()})
    palette = colours([names[0] for names in twins])
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for names in twins:
        width = 2.4 if name in names else 1.3
        shown = {"color": palette[names[0]], "linestyle": look(names[0]).dash, "linewidth": width, "label": ", ".join(names)}
        axes.plot(hit_rate, weights[names[0]], **shown)
    if "closed form" in curves:
        closed = np.array(curves["closed form"])
        axes.plot(hit_rate, closed / np.abs(closed).max(), color=INK, linestyle=":", label=f"{name}, closed form")
    if min(curve.min() for curve in weights.values()) > 0:
        axes.set(yscale="log")
        plain_powers(axes.yaxis)
    else:
        axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xscale="log", xlabel="hit rate p of a prompt", ylabel="w(p), of its largest", title=f"Weight of {name}")
    axes.legend(fontsize=8)
    words = f"One group of G = {found['group_size']}, each curve over its own largest value; exact over the number of hits."
    return Drawn("figure", f"Weight of {name}", figure, words)
