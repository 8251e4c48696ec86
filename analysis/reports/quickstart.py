"""Report of `recast-sim quickstart` from its folder alone."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from analysis.drawing.panels import draw_band, same_curves, stacked
from analysis.drawing.style import REGIME_COLOURS, Drawn, apply_style, colours
from analysis.drawing.words import ratio_text
from analysis.measures.budget_curves import Curves, budget_ratio
from analysis.measures.statistics import bootstrap, mean
from analysis.reports.report import Report, Table
from recast_sim.runs import Run, RunError, read_run

_SHARES = ("all_zero", "single_hit", "multi_hit", "all_hit", "learnable")
Runs = dict[str, dict[int, Run]]
_NOTE = (
    "Held-out Pass@1 of the base policy: sampled {pass_at_1_sampled:.4f}, greedy {pass_at_1_greedy:.4f}; best possible "
    "{best_possible:.4f}. Gradient variance: of one group's estimate, over the squared norm of its mean; the cosine is to the "
    "exact gradient of sampled Pass@1. Budget ratio: rollouts to {baseline}'s final sampled Pass@1 (mean of its last three "
    "evaluations) over {baseline}'s rollouts, interquartile mean over seeds, 95 % bootstrap interval; a seed that never gets "
    "there is censored (> 1). lr: best of the grid by final sampled Pass@1 in a world that is not reported; * is the grid's "
    "edge. sft draws rollouts here only to log regimes; it needs none."
)


def report(root: Path) -> Report:
    """Regimes, a row for each constructor, and the four-panel figure.

    Raises:
        RunError: the folder holds no study, or one without runs.
    """
    runs, worlds = _load(root)
    summary = _summary(root, runs, worlds)
    note = _NOTE.format(baseline=summary["baseline"], **summary["base"])
    return Report(summary, (_regimes(summary), _constructors(summary), note), lambda: [_figure(runs, summary)])


def _summary(root: Path, runs: Runs, worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """`regime_before` and `regime_after` are means over the reported worlds, at the base policy, before and after recast's
    repair. Gradient figures are means over worlds; scores are final (mean of the last three evaluations) with 95 % intervals
    over seeds.
    """
    baseline = next(iter(runs))
    rates = read_run(root).manifest["config"]["learning_rates"]
    gradients = _gradients(worlds)
    reference = gradients.get("recast", gradients[baseline])
    return {
        "regime_before": {share: _mean(row["regime_before"][share] for row in reference) for share in _SHARES},
        "regime_after": {share: _mean(row["regime_after"][share] for row in reference) for share in _SHARES},
        "constructors": {name: _constructor(name, runs, gradients[name]) for name in runs},
        "baseline": baseline,
        "grid_edges": [min(rates), max(rates)],
        "base": {
            "pass_at_1_sampled": _start(runs[baseline], "pass_at_1_sampled"),
            "pass_at_1_greedy": _start(runs[baseline], "pass_at_1_greedy"),
            "best_possible": _mean(world["best_possible"]["pass_at_1"] for world in worlds),
        },
        "worlds": len(worlds),
        "run": str(root),
    }


def _figure(runs: Runs, summary: dict[str, Any]) -> Drawn:
    apply_style()
    palette = colours(runs)
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    _draw_regimes(axes[0, 0], summary)
    _draw_learnable(axes[0, 1], runs, palette)
    _draw_gradients(axes[1, 0], summary, palette)
    _draw_budget(axes[1, 1], runs, palette)
    figure.tight_layout()
    words = f"{summary['worlds']} calibrated worlds, one seed each; bands are 95 % bootstrap intervals of the mean."
    return Drawn("figure", "Regimes, learnable groups, gradients and budget curves", figure, words)


def _load(root: Path) -> tuple[Runs, list[dict[str, Any]]]:
    config = read_run(root).manifest["config"]
    if "constructors" not in config:
        raise RunError(f"{root}: not a study; it holds a single run, use `recast-report show`")
    runs: Runs = defaultdict(dict)
    for name in config["constructors"]:
        for folder in sorted((root / "runs").glob(f"{name}-seed*")):
            runs[name][int(folder.name.rsplit("seed", 1)[1])] = read_run(folder)
    if not runs:
        raise RunError(f"{root}: the study has no finished run; start it again with --resume")
    seeds = sorted(next(iter(runs.values())))
    return dict(runs), [_world(root / "worlds" / f"seed-{seed}") for seed in seeds]


def _world(folder: Path) -> dict[str, Any]:
    info, gradients = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("world", "gradients"))
    return info | {"gradients": gradients}


def _gradients(worlds: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for world in worlds:
        for report in world["gradients"]:
            by_name[report["constructor"]].append(report)
    return by_name


def _constructor(name: str, runs: Runs, reports: list[dict[str, Any]]) -> dict[str, Any]:
    baseline = next(iter(runs))
    evals = {seed: run.evals for seed, run in runs[name].items()}
    against = {seed: run.evals for seed, run in runs[baseline].items()}
    sampled, reference = (Curves.of(frames, "pass_at_1_sampled") for frames in (evals, against))
    scores = {}
    for metric in ("pass_at_1_sampled", "pass_at_1_greedy"):
        interval = bootstrap(Curves.of(evals, metric).finals_S.tolist(), mean)
        scores |= {metric: interval.value, f"{metric}_interval": [interval.low, interval.high]}
    return {
        "learnable": _mean(row["learnable"] for row in reports),
        "update_width": _mean(row["update_width"] for row in reports),
        "gradient_variance": _mean_if_known(reports, "variance"),
        "gradient_cosine": _mean_if_known(reports, "cosine"),
        "learning_rate": next(iter(runs[name].values())).manifest["config"]["training"]["learning_rate"],
        **scores,
        "budget_ratio": asdict(budget_ratio([sampled], [reference])),
        "actor_rows": _mean(frame["actor_rows"][-1] for frame in evals.values()),
    }


def _regimes(summary: dict[str, Any]) -> Table:
    rows: list[tuple[str, ...]] = [("paper, before", "85 %", "13 %", "2 %", "", "15 %")]
    for label, key in (("before repair", "regime_before"), ("after repair", "regime_after")):
        rows.append((label, *(f"{100 * summary[key][share]:.1f} %" for share in _SHARES)))
    header = ("", "all-zero", "single-hit", "multi-hit", "all-hit", "naturally learnable")
    return Table(f"(a) regimes at the base policy, mean of {summary['worlds']} worlds", header, rows)


def _constructors(summary: dict[str, Any]) -> Table:
    header = ("constructor", "learnable", "rows", "grad variance", "cosine", "lr", "sampled Pass@1", "greedy Pass@1")
    rows = [
        (
            name,
            f"{100 * row['learnable']:.1f} %",
            f"{row['update_width']:.1f}",
            _optional(row["gradient_variance"], ".0f"),
            _optional(row["gradient_cosine"], ".2f"),
            f"{row['learning_rate']:g}{'*' if row['learning_rate'] in summary['grid_edges'] else ''}",
            *(_score(row, metric) for metric in ("pass_at_1_sampled", "pass_at_1_greedy")),
            ratio_text(row["budget_ratio"]),
        )
        for name, row in summary["constructors"].items()
    ]
    title = "(b) learnable groups, (c) gradients at the base policy, (d) training"
    return Table(title, (*header, "budget ratio"), rows)


def _score(row: dict[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_interval"]
    return f"{row[metric]:.4f} [{low:.4f}, {high:.4f}]"


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_if_known(reports: list[dict[str, Any]], key: str) -> float | None:
    """The mean over worlds, None where a world's sample was too small to tell."""
    return None if any(report[key] is None for report in reports) else _mean(report[key] for report in reports)


def _optional(value: float | None, digits: str) -> str:
    return "unknown" if value is None else format(value, digits)


def _start(runs: dict[int, Run], metric: str) -> float:
    return _mean(run.evals[metric][0] for run in runs.values())


def _draw_regimes(axis: Axes, summary: dict[str, Any]) -> None:
    left = np.zeros(2)
    for share, colour in REGIME_COLOURS.items():
        widths = np.array([100 * summary[key][share] for key in ("regime_after", "regime_before")])
        axis.barh(["after repair", "before repair"], widths, left=left, color=colour, label=share.replace("_", "-"))
        left += widths
    axis.set(xlabel="share of groups (%)", title="Regimes at the base policy", xlim=(0, 100))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=4)


def _draw_learnable(axis: Axes, runs: Runs, palette: dict[str, str]) -> None:
    smooth = 9 if all(len(run.steps) >= 9 for seeds in runs.values() for run in seeds.values()) else 1
    frames = {name: [run.steps for run in seeds.values()] for name, seeds in runs.items()}
    shares = {name: 100 * stacked(steps, "learnable", smooth) for name, steps in frames.items()}
    for names in same_curves({name: (share,) for name, share in shares.items()}):
        x = stacked(frames[names[0]], "step", smooth).mean(0)
        draw_band(axis, x, shares[names[0]], palette[names[0]], " = ".join(names))
    axis.legend(fontsize=8, loc="center right")
    axis.set(xlabel="step", ylabel="learnable groups (%)", ylim=(0, 103))
    axis.set_title(f"Learnable groups in training ({smooth}-step mean)")


def _draw_gradients(axis: Axes, summary: dict[str, Any], palette: dict[str, str]) -> None:
    rows = summary["constructors"]
    seen = {name: row for name, row in rows.items() if row["gradient_variance"] is not None}
    points = {name: (np.array([row["gradient_variance"], row["gradient_cosine"]]),) for name, row in seen.items()}
    for names in same_curves(points):
        axis.scatter(*points[names[0]][0], color=palette[names[0]], s=60, zorder=3, label=" = ".join(names))
    axis.legend(fontsize=8, loc="lower right")
    axis.set(xscale="log", xlabel="gradient variance of one group (relative)", ylabel="cosine to the exact gradient")
    axis.set(ylim=(min([0, *(p[0][1] - 0.1 for p in points.values())]), 1.12), title="Bias and variance at the base policy")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    if points:
        axis.set_xlim(min(p[0][0] for p in points.values()) / 1.7, max(p[0][0] for p in points.values()) * 1.7)


def _draw_budget(axis: Axes, runs: Runs, palette: dict[str, str]) -> None:
    frames = {name: [run.evals for run in seeds.values()] for name, seeds in runs.items()}
    scores = {name: stacked(evals, "pass_at_1_sampled") for name, evals in frames.items()}
    for names in same_curves({name: (score,) for name, score in scores.items()}):
        spent = stacked(frames[names[0]], "rollouts").mean(0) / 1000
        draw_band(axis, spent, scores[names[0]], palette[names[0]], " = ".join(names))
    axis.set(xlabel="generated rollouts (thousands)", ylabel="held-out sampled Pass@1", title="Budget curves", ylim=(0, None))
    axis.legend(fontsize=8)
