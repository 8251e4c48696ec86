"""The figure of `recast-report learned`: hit rates by depth of the list, and every change with its interval."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from recast_analysis.drawing.style import INK, Drawn, apply_style
from recast_analysis.learned.learned_verdict import NATS, Changes, LearnedVerdict, title
from recast_analysis.learned.paired_changes import Change

_COLOURS = {"BEFORE": "#949494", "AFTER": "#0173b2", "SUPERVISED": "#cc78bc"}
_HERE = "AFTER - BEFORE"


def changes_figure(changes: Changes, verdict: LearnedVerdict, counts: str) -> Drawn:
    """Panels of what the files give: HR@k, changes that are shares, changes in nats."""
    apply_style()
    hits = [one for name, one in changes.own.items() if name.startswith("hr@")]
    shares = [name for name in changes.own if not name.startswith(NATS)]
    nats = [name for name in changes.own if name.startswith(NATS)]
    panels = [kind for kind, there in (("hits", hits), ("shares", shares), ("nats", nats)) if there]
    height = 1.6 + 0.3 * max(len(shares), len(nats), 6)
    figure, axes = plt.subplots(
        1, max(1, len(panels)), figsize=(4.6 * max(1, len(panels)), height), layout="constrained", squeeze=False
    )
    drawers = {
        "hits": lambda axis: _draw_hits(axis, hits, changes),
        "shares": lambda axis: _draw_changes(axis, shares, changes, 100.0, "change (percentage points)"),
        "nats": lambda axis: _draw_changes(axis, nats, changes, 1.0, "change (nats)"),
    }
    for letter, axis, kind in zip("abc", axes[0], panels, strict=False):
        drawers[kind](axis)
        axis.set_title(f"({letter}) {'hit rate by depth of the list' if kind == 'hits' else _HERE}")
    figure.suptitle("\n".join(textwrap.wrap(f"verdict: {verdict.label}", 80)))
    caption = f"{counts}. 95 % t intervals over users or prompts; one run each. {verdict.words[0]}"
    return Drawn("learned", "Did RL do anything?", figure, caption)


def _draw_hits(axis: Axes, hits: Sequence[Change], changes: Changes) -> None:
    depths = [int(one.name.partition("@")[2]) for one in hits]
    lines = {"BEFORE": [one.before for one in hits], "AFTER": [one.after for one in hits]}
    if all(one.name in changes.supervised for one in hits):
        lines["SUPERVISED"] = [changes.supervised[one.name].after for one in hits]
    for name, values in lines.items():
        axis.plot(depths, [100 * value for value in values], color=_COLOURS[name], marker="o", markersize=4, label=name)
    axis.set_xscale("log")
    axis.set_xticks(depths, [str(k) for k in depths])
    axis.minorticks_off()
    axis.set(xlabel="k", ylabel="HR@k (%)")
    axis.set_ylim(bottom=0)
    axis.legend()


def _draw_changes(axis: Axes, names: Sequence[str], changes: Changes, scale: float, label: str) -> None:
    for some, colour, shift in ((changes.own, _COLOURS["AFTER"], 0.0), (changes.supervised, _COLOURS["SUPERVISED"], 0.3)):
        for place, one in ((place, some[name]) for place, name in enumerate(names) if name in some):
            ends = one.difference
            if ends.low is None or ends.high is None:
                continue
            axis.plot([scale * ends.low, scale * ends.high], [place + shift] * 2, color=colour, linewidth=1.5)
            axis.plot(scale * ends.value, place + shift, color=colour, marker="o", markersize=4)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(names)), [title(name) for name in names])
    axis.invert_yaxis()
    axis.set(xlabel=label)
