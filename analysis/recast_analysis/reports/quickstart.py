"""Report of `recast-sim quickstart` from its folder alone."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.panels import draw_band, same_curves, stacked
from recast_analysis.drawing.reading_aids import better
from recast_analysis.drawing.style import INK, REGIME_COLOURS, Drawn, apply_style, colours
from recast_analysis.drawing.words import interval_text, ratio_text
from recast_analysis.measures.budget_curves import budget_ratio
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.learned_parts import learning_rows
from recast_analysis.measures.metric_names import GREEDY
from recast_analysis.reports.pieces.learning_tables import learning_tables
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table

_SHARES = ("all_zero", "single_hit", "multi_hit", "all_hit", "learnable")
_BASELINE, _GOAL = "grpo", "heldout soft_greedy"
_NOTE = (
    "Greedy Pass@1 (the paper's metric) of the base policy, held out: {base:.4f}, best possible {best:.4f}. Gradient: "
    "of one group's estimate there; variance: over the squared norm of its mean. Cools: the cosine of the expected "
    "update and the temperature direction (1: it only cools). Learns: first-order gain of held-out soft-greedy Pass@1 through "
    "the rest, in units of its exact gradient's gain. Budget: rollouts to grpo's final greedy Pass@1 over grpo's, restricted "
    "mean. lr: best by greedy Pass@1 in other worlds; * is the end of its grid. sft needs no rollouts."
)
_LINE = 0.07  # height of a label, as a share of the highest point


def report(root: Path) -> Report:
    """Regimes, a row for each constructor, what was learned, what it means, and the four-panel figure.

    Raises:
        RunError: the study is not finished.
    """
    found = Comparison.read(root / "methods")
    file = root / "gradients.parquet"
    if not file.exists():
        raise RunError(f"{root}: gradients.parquet is missing; go on with --resume")
    summary = _summary(root, found, read_table(file, RunError))
    note = _NOTE.format(base=summary["base"][GREEDY], best=summary["base"]["best_possible"])
    tables = (_regimes(summary), _constructors(summary), note, *learning_tables(summary["learning"]), summary["meaning"])
    return Report(summary, tables, lambda: [_figure(found, summary)])


def _summary(root: Path, found: Comparison, gradients: pl.DataFrame) -> dict[str, Any]:
    """Figures for JSON: regimes at the base policy before and after recast's repair, and gradient figures, are means over the
    reported worlds."""
    reference = gradients.filter(constructor="recast")
    learning = {"metric": GREEDY, "rows": learning_rows(found, GREEDY)}
    (setting,) = found.settings
    starts = found.curves(setting, found.methods[0], GREEDY).starts_S
    summary = {
        "regime_before": {share: _mean(reference, f"regime_before.{share}") for share in _SHARES},
        "regime_after": {share: _mean(reference, f"regime_after.{share}") for share in _SHARES},
        "constructors": {name: _constructor(name, found, setting, gradients) for name in found.methods},
        "baseline": _BASELINE,
        "base": {GREEDY: float(starts.mean()), "best_possible": _mean(found.reported_worlds, "best_possible")},
        "learning": learning,
        "worlds": found.reported_worlds.height,
        "run": str(root),
    }
    return summary | {"meaning": _meaning(summary)}


def _constructor(name: str, found: Comparison, setting: str, gradients: pl.DataFrame) -> dict[str, Any]:
    own = gradients.filter(constructor=name)
    curves, baseline = (found.curves(setting, method, GREEDY) for method in (name, _BASELINE))
    frames = found.frames(setting, name, GREEDY).values()
    rate, at_edge = found.rate(setting, name, GREEDY)
    return {
        "learnable": _mean(own, "learnable"),
        "update_width": _mean(own, "update_width"),
        "gradient_variance": _mean(own, "variance"),
        "gradient_cosine": _mean(own, "cosine"),
        "cools": _mean(own, "parts.cooling"),
        "learns": _mean(own, f"parts.gains.{_GOAL}.learned"),
        "learning_rate": rate,
        "at_edge": at_edge,
        GREEDY: float(curves.finals_S.mean()),
        "budget_ratio": asdict(budget_ratio([curves], [baseline])),
        "actor_rows": float(np.mean([frame["actor_rows"][-1] for frame in frames])),
    }


def _meaning(summary: dict[str, Any]) -> str:
    """One paragraph: who learned, who only sharpened, and what temperatures alone buy. Every figure is of the tables above."""
    rows = {name: row for name, row in summary["learning"]["rows"].items() if name in summary["constructors"]}
    gains = {name: row["greedy"]["value"] for name, row in rows.items()}
    best, control = max(gains, key=gains.__getitem__), summary["learning"]["rows"]["base_level_weights"]["greedy"]["value"]
    sampled = rows[_BASELINE]
    share = sampled["sharpened"]["value"] / sampled["sampled"]["value"] if sampled["sampled"]["value"] > 0 else None
    sharp = "" if share is None else f" Of {_BASELINE}'s gain in sampled Pass@1, {100 * share:.0f} % is sharpening."
    told = [name for name, row in rows.items() if (row["greedy"]["low"] or 0) > 0]
    below = [name for name, row in rows.items() if (row["greedy"]["high"] or 0) < 0]
    worlds = summary["worlds"]
    return (
        f"What it means: on greedy Pass@1, the paper's metric, {worlds} worlds tell these from the base policy: above it "
        f"{_names(told)}, below it {_names(below)}. {best} ends highest ({100 * gains[best]:+.1f} %). Numbers for the levels "
        f"alone, without training, move it by {100 * control:+.1f} %: only what a method gains beyond them is learning.{sharp}"
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _figure(found: Comparison, summary: dict[str, Any]) -> Drawn:
    apply_style()
    (setting,) = found.settings
    frames = {name: list(found.frames(setting, name, GREEDY).values()) for name in found.methods}
    palette = colours(frames)
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    _draw_regimes(axes[0, 0], summary)
    _draw_learnable(axes[0, 1], frames, palette)
    _draw_updates(axes[1, 0], summary, palette)
    _draw_budget(axes[1, 1], frames, palette)
    figure.tight_layout()
    words = f"{summary['worlds']} calibrated worlds; bands are 95 % t intervals of the mean."
    return Drawn("figure", "Regimes, learnable groups, what updates do, and budget curves", figure, words)


def _regimes(summary: dict[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = [("paper, before", "85 %", "13 %", "2 %", "", "15 %")]
    for label, key in (("before repair", "regime_before"), ("after repair", "regime_after")):
        rows.append((label, *(f"{100 * summary[key][share]:.1f} %" for share in _SHARES)))
    header = ("", "all-zero", "single-hit", "multi-hit", "all-hit", "naturally learnable")
    return Table(f"(a) regimes at the base policy, mean of {summary['worlds']} worlds", header, rows)


def _constructors(summary: dict[str, Any]) -> Table:
    header = ("constructor", "learnable", "rows", "variance", "cosine", "cools", "learns", "lr", "greedy Pass@1", "budget")
    greedy = {name: row["greedy"] for name, row in summary["learning"]["rows"].items()}
    rows = [
        (
            name,
            f"{100 * row['learnable']:.1f} %",
            f"{row['update_width']:.1f}",
            _optional(row["gradient_variance"], ".0f"),
            *(_optional(row[key], "+.2f") for key in ("gradient_cosine", "cools", "learns")),
            f"{row['learning_rate']:g}{'*' if row['at_edge'] else ''}",
            f"{row[GREEDY]:.4f}, {interval_text(greedy[name], percent=True)}",
            ratio_text(row["budget_ratio"]),
        )
        for name, row in summary["constructors"].items()
    ]
    return Table("(b) learnable groups, (c) gradients at the base policy, (d) training", header, rows)


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    """The mean over worlds, None where one of them could not tell."""
    return None if column not in rows.columns or rows[column].null_count() else float(rows[column].to_numpy().mean())


def _optional(value: float | None, digits: str) -> str:
    return "unknown" if value is None else format(value, digits)


def _draw_regimes(axis: Axes, summary: dict[str, Any]) -> None:
    left = np.zeros(2)
    for share, colour in REGIME_COLOURS.items():
        widths = np.array([100 * summary[key][share] for key in ("regime_after", "regime_before")])
        axis.barh(["after repair", "before repair"], widths, left=left, color=colour, label=share.replace("_", "-"))
        left += widths
    axis.set(xlabel="share of groups (%)", title="Regimes at the base policy", xlim=(0, 100))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=4)


def _draw_learnable(axis: Axes, frames: dict[str, list[pl.DataFrame]], palette: dict[str, str]) -> None:
    shares = {name: 100 * stacked([frame[1:] for frame in own], "learnable") for name, own in frames.items()}
    for names in same_curves({name: (share,) for name, share in shares.items()}):
        steps = stacked([frame[1:] for frame in frames[names[0]]], "step").mean(0)
        draw_band(axis, steps, shares[names[0]], palette[names[0]], " = ".join(names), look(names[0]).dash)
    axis.legend(fontsize=9, loc="center right")
    axis.set(xlabel="step", ylabel="learnable groups (%)", ylim=(0, 103), title="Learnable groups in training")
    better(axis, "up")


def _draw_updates(axis: Axes, summary: dict[str, Any], palette: dict[str, str]) -> None:
    rows = summary["constructors"].items()
    points = {name: (row["cools"], row["learns"]) for name, row in rows if None not in (row["cools"], row["learns"])}
    for name, point in points.items():
        axis.scatter(*point, color=palette[name], s=60, zorder=3)
    high = max([abs(learns) for _, learns in points.values()], default=0) or 1
    last = -np.inf  # labels stand at the height of their points, or above the one below
    for name, (cools, learns) in sorted(points.items(), key=lambda item: item[1][1]):
        last = max(learns, last + _LINE * high)
        axis.annotate(name, (cools, learns), (cools + 0.05, last), fontsize=9, va="center")
    for line in (axis.axhline, axis.axvline):
        line(0, color=INK, linewidth=0.8)
    axis.set(xlabel="cools: cosine of the update and the temperature direction", title="What an update does at the base policy")
    axis.set(ylabel="learns: soft-greedy gain by the rest", xlim=(-1, 1))
    axis.margins(y=0.15)
    better(axis, "up")


def _draw_budget(axis: Axes, frames: dict[str, list[pl.DataFrame]], palette: dict[str, str]) -> None:
    scores = {name: stacked(own, GREEDY) for name, own in frames.items()}
    scores = {name: score / score[:, :1] for name, score in scores.items()}
    for names in same_curves({name: (score,) for name, score in scores.items()}):
        spent = stacked(frames[names[0]], "rollouts").mean(0) / 1000
        draw_band(axis, spent, scores[names[0]], palette[names[0]], " = ".join(names), look(names[0]).dash)
    axis.axhline(1, color=INK, linewidth=0.8)
    axis.set(xlabel="generated rollouts (thousands)", ylabel="greedy Pass@1 over the base policy's", title="Budget curves")
    better(axis, "up")
    axis.legend(fontsize=9)
