"""What each method learned, as a figure: greedy Pass@1 plain, and with both sides at their own numbers for the levels."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from recast_analysis.drawing.reading_aids import better, legend_above
from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.drawing.words import count_words, metric_words

_PLAIN, _LEVELS, _BOUGHT = "#bbbbbb", "#4477aa", "#cc3311"


def learned_figure(learning: Mapping[str, Any], worlds: int) -> Drawn:
    """A panel a setting, a line a method, from `learning_rows`; methods in the order of what they learned on average."""
    apply_style()
    panels = learning["by_setting"] or {"": learning["rows"]}
    methods = [name for name, row in learning["rows"].items() if row["greedy_levels"] is not None]
    methods.sort(key=lambda name: learning["rows"][name]["greedy_levels"]["value"])
    wide = min(2, len(panels))  # four side by side no page could show
    high = -(-len(panels) // wide)
    size = (2.2 + 2.9 * wide, 0.6 + (0.8 + 0.22 * len(methods)) * high)
    figure, axes = plt.subplots(high, wide, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, (setting, rows) in zip(axes.flat, panels.items(), strict=False):
        _draw(axis, rows, methods)
        axis.set_title(setting, fontsize=9, loc="left")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    legend_above(figure, axes.flat)
    words = (
        f"Change of greedy Pass@1 from the base policy, 95 % t intervals, {worlds} worlds in "
        f"{count_words(len(panels), 'setting')}, every method at the rate tuned for {metric_words(learning['metric'])}. "
        "Blue: both sides at the numbers for their levels that fit validation prompts, so that such numbers buy nothing. "
        "Dashed: what they buy the base policy, untrained."
    )
    return Drawn("learned", "What was learned that no temperature buys", figure, words)


def _draw(axis: Axes, rows: Mapping[str, Any], methods: list[str]) -> None:
    for key, colour, label, shift in (
        ("greedy", _PLAIN, "as trained", 0.12),
        ("greedy_levels", _LEVELS, "at own level numbers", -0.12),
    ):
        found = [rows[name][key] for name in methods]
        middle = [100 * row["value"] for row in found]
        reach = [
            [100 * (row["value"] - (row["value"] if row[end] is None else row[end])) for row in found]
            for end in ("low", "high")
        ]
        places = [at + shift for at in range(len(methods))]
        axis.errorbar(middle, places, xerr=[reach[0], [-r for r in reach[1]]], fmt="o", markersize=4, color=colour, label=label)
    axis.axvline(0, color=INK, linewidth=0.8)
    bought = 100 * rows["base_level_weights"]["greedy"]["value"]
    axis.axvline(bought, color=_BOUGHT, linewidth=1, linestyle="--", label="level numbers alone")
    axis.set(yticks=range(len(methods)), yticklabels=methods, xlabel="change of greedy Pass@1 (%)")
    axis.tick_params(labelsize=8)
    better(axis, "right")
