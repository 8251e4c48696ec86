"""Report of `recast-sim budget` from its folder alone."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.panels import draw_band
from recast_analysis.drawing.reading_aids import GREY, better, foremost, legend_above, others
from recast_analysis.drawing.style import INK, Drawn, apply_style, colours
from recast_analysis.drawing.words import count_words, gain_text, interval_text, metric_words, ratio_text, remark
from recast_analysis.measures.budget_curves import AXES, budget_ratio, gain, matched_log_ratio
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.learned_parts import Values, learning_rows
from recast_analysis.measures.metric_names import IN_NATS
from recast_analysis.measures.statistics import mean_interval
from recast_analysis.reports.pieces.learned_figure import learned_figure
from recast_analysis.reports.pieces.learning_tables import learning_tables
from recast_analysis.reports.report import Report, Table

BASELINES = ("grpo", "sft", "sft_hard_negative")
PARTS = {  # what is added to what, at grpo's own rate under plain SGD
    "groups": ("repair_only rate_of=grpo", "grpo"),
    "weight": ("recast rate_of=grpo", "recast norm_like=grpo rate_of=grpo"),
    "direction": ("boundary_only norm_like=grpo rate_of=grpo", "grpo"),
    "all of recast": ("recast rate_of=grpo", "grpo"),
}
_PART_WORDS = {
    "groups": "groups: repair_only over grpo",
    "weight": "weight: recast over recast at grpo's norm",
    "direction": "direction: boundary pair over grpo, same groups and norm",
    "all of recast": "all of it: recast over grpo",
}
_NOTE = (
    "Held-out prompts. Final scores: means of the last three evaluations (calibrated log-likelihood: the last), as change from "
    "the base policy or a baseline in the same worlds, in percent or nats; the mean over settings, with 95 % t intervals over "
    "worlds. Budget ratios: what a method spends to reach the baseline's final score (first crossing that holds for two "
    "evaluations) over what the baseline spent in all, restricted mean: a world where it never gets there counts as the whole "
    "budget; (n/N): n of N such worlds; no gain: the baseline ended no higher than it began. lr: tuned for this metric on "
    "worlds that are not reported; one grid for all, which grows until the best rate lies inside; * it is at an end still."
)


def report(root: Path) -> Report:
    """Scores and budget ratios of each metric and method, the parts of recast's gain, and the budget curves.

    Raises:
        RunError: the comparison is not finished.
    """
    summary = _summary(root)
    return Report(summary, _shown(summary), lambda: [*_figures(root, summary), _learned(summary)])


def _summary(root: Path) -> dict[str, Any]:
    found = Comparison.read(root / "methods")
    controls = root / "controls"
    return {
        "settings": found.settings,
        "reported_worlds": found.reported_worlds.height,
        "regime": {name: _world_mean(found, name) for name in ("all_zero", "single_hit", "multi_hit", "all_hit")},
        "hit_rate": _world_mean(found, "hit_rate"),
        "best_possible": _world_mean(found, "best_possible"),
        "base": {metric: _base(found, metric) for metric in found.metrics},
        "learning": _learning(found, found.metrics[0]),
        "metrics": {metric: {m: _method(found, m, metric) for m in found.methods} for metric in found.metrics},
        "parts": _parts(Comparison.read(controls)) if controls.exists() else {},
        "run": str(root),
    }


def _learning(found: Comparison, metric: str) -> dict[str, Any]:
    """What was learned over all settings, and in each where there are several."""
    each = {s: learning_rows(found, metric, [s]) for s in found.settings} if len(found.settings) > 1 else {}
    return {"metric": metric, "rows": learning_rows(found, metric), "by_setting": each}


def _shown(summary: dict[str, Any]) -> list[Table | str]:
    """Two tables a metric, then the parts of the gain."""
    shares = " / ".join(f"{100 * summary['regime'][name]:.1f}" for name in ("all_zero", "single_hit", "multi_hit"))
    shown: list[Table | str] = [
        f"{summary['reported_worlds']} reported worlds in {count_words(len(summary['settings']), 'setting')}: "
        f"all-zero / single-hit / multi-hit {shares} %, "
        f"mean hit rate {summary['hit_rate']:.4f}, best possible greedy {summary['best_possible']:.4f}"
    ]
    shown += learning_tables(summary["learning"])
    for metric, methods in summary["metrics"].items():
        shown.append(_scores(metric, methods, summary["base"][metric]))
        if len(summary["settings"]) > 1:
            shown.append(_by_setting(metric, methods, summary["settings"]))
        if metric not in IN_NATS:
            shown.append(_costs(metric, methods))
    shown.append(_NOTE)
    if summary["parts"]:
        shown += _parts_tables(summary["parts"])
    return shown


def _figures(root: Path, summary: dict[str, Any]) -> list[Drawn]:
    """Curves of each metric over generated rollouts, and the parts of the gain; nothing of metrics that have no curve."""
    found = Comparison.read(root / "methods")
    metrics, palette = _with_curves(found.metrics), colours(foremost(found.methods))
    if not metrics:
        return []
    apply_style()
    panels = len(metrics) + bool(summary["parts"])
    wide = min(2, panels)
    high = -(-panels // wide)
    figure, axes = plt.subplots(high, wide, figsize=(5.4 * wide, 4.4 * high), squeeze=False, layout="constrained")
    for axis, metric in zip(axes.flat, metrics, strict=False):
        _draw_curves(axis, found, metric, palette)
    if summary["parts"]:
        _draw_parts(axes.flat[panels - 1], summary["parts"])
    for axis in axes.flat[panels:]:
        axis.set_axis_off()
    legend_above(figure, axes.flat[: len(metrics)])
    words = (
        f"{summary['reported_worlds']} worlds in {count_words(len(summary['settings']), 'setting')}; "
        "lines are means over the base policy's score, bands 95 % t intervals; "
        "methods that need no rollouts stand where the others were by then; "
        "rates tuned for each panel's metric."
        f"{others(found.methods, list(palette))}"
    )
    return [Drawn("figure", "Budget curves", figure, words)]


def _with_curves(metrics: Sequence[str]) -> list[str]:
    """Log-likelihoods stand in a run's first and last evaluation alone."""
    return [metric for metric in metrics if metric not in IN_NATS]


def _learned(summary: dict[str, Any]) -> Drawn:
    return learned_figure(summary["learning"], summary["reported_worlds"])


def _method(found: Comparison, method: str, metric: str) -> dict[str, Any]:
    rates = [found.rate(setting, method, metric) for setting in found.settings]
    curves = [found.curves(setting, method, metric) for setting in found.settings]
    row: dict[str, Any] = {
        "learning_rates": [rate for rate, _ in rates],
        "at_edge": any(edge for _, edge in rates),
        "final": asdict(mean_interval(*(c.finals_S for c in curves))),
        "versus_base": _gains(found, metric, [c.finals_S for c in curves], [c.starts_S for c in curves]),
        "budget": {},
    }
    for baseline in (name for name in BASELINES if name in found.methods):
        others = [found.curves(setting, baseline, metric) for setting in found.settings]
        row[f"versus_{baseline}"] = _gains(found, metric, [c.finals_S for c in curves], [c.finals_S for c in others])
        if metric not in IN_NATS:
            row["budget"][baseline] = {axis: asdict(budget_ratio(curves, others, axis)) for axis in AXES}
    if not found.draws(method):  # the simulator draws its rollouts for the log alone: where it gets there, it needs none
        for ratios in row["budget"].values():
            ratios["rollouts"] |= {
                k: None if ratios["rollouts"][k] is None else 0.0 for k in ("value", "low", "high", "median")
            }
    return row


def _gains(found: Comparison, metric: str, ours: Values, theirs: Values) -> dict[str, Any]:
    """The gain over all settings, and that of each."""
    each = {s: asdict(gain(metric, [mine], [other])) for s, mine, other in zip(found.settings, ours, theirs, strict=True)}
    return asdict(gain(metric, ours, theirs)) | {"by_setting": each}


def _parts(controls: Comparison) -> dict[str, Any]:
    """Each part of recast's gain: final score relative to the control's, and log10 of the matched budget ratio."""
    parts: dict[str, Any] = {}
    for metric in controls.metrics:
        parts[metric] = {}
        for part, (method, control) in PARTS.items():
            pairs = [(controls.curves(s, method, metric), controls.curves(s, control, metric)) for s in controls.settings]
            parts[metric][part] = {
                "relative_difference": asdict(gain(metric, [m.finals_S for m, _ in pairs], [c.finals_S for _, c in pairs])),
                "log10_budget_ratio": asdict(mean_interval(*(matched_log_ratio(m, c) for m, c in pairs))),
            }
    return parts


def _scores(metric: str, methods: dict[str, Any], base: float) -> Table:
    baselines = [name for name in BASELINES if name in methods]
    header = ("method", "lr", "vs base", *(f"vs {baseline}" for baseline in baselines))
    rows = []
    for name, row in methods.items():
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(row["learning_rates"]))) + ("*" if row["at_edge"] else "")
        rows.append((name, rates, *(gain_text(row[f"versus_{other}"], metric) for other in ("base", *baselines))))
    return Table(f"{metric}{remark(metric)}, base policy {base:.4f}: change of the final score", header, rows)


def _by_setting(metric: str, methods: dict[str, Any], settings: Sequence[str]) -> Table:
    against = "sft" if "sft" in methods else "base"
    cells = {name: row[f"versus_{against}"]["by_setting"] for name, row in methods.items()}
    rows = [(name, *(gain_text(row[setting], metric) for setting in settings)) for name, row in cells.items()]
    return Table(f"{metric}: final score against {against}, setting by setting", ("method", *settings), rows)


def _costs(metric: str, methods: dict[str, Any]) -> Table:
    axes = AXES if "grpo" in methods else ()
    others = [name for name in BASELINES if name in methods and name != "grpo"]
    header = ["method", *(f"{axis.replace('_', ' ')} to grpo" for axis in axes), *(f"steps to {name}" for name in others)]
    rows = []
    for name, row in methods.items():
        ratios = [row["budget"]["grpo"][axis] for axis in axes] + [row["budget"][o]["optimiser_steps"] for o in others]
        rows.append((name, *map(ratio_text, ratios)))
    return Table(f"{metric}: budget ratios", header, rows)


def _parts_tables(parts: dict[str, Any]) -> list[Table]:
    def rows(text: Callable[[dict[str, Any], str], str], metrics: Sequence[str]) -> list[tuple[str, ...]]:
        return [(words, *(text(parts[metric][part], metric) for metric in metrics)) for part, words in _PART_WORDS.items()]

    title, curved = "parts of recast's gain over grpo, plain SGD at the rate tuned for grpo", _with_curves(list(parts))
    finals = rows(lambda row, metric: gain_text(row["relative_difference"], metric), list(parts))
    steps = rows(lambda row, _: interval_text(row["log10_budget_ratio"]), curved)
    words = f"{title}: log10 of the steps to the lower of two final scores"
    return [Table(f"{title}: final score", ("part", *parts), finals), Table(words, ("part", *curved), steps)]


def _draw_curves(axis: Axes, found: Comparison, metric: str, palette: dict[str, str]) -> None:
    of_methods = {method: [found.curves(setting, method, metric) for setting in found.settings] for method in found.methods}
    above = all((c.starts_S > 0).all() for curves in of_methods.values() for c in curves)  # else a share of them is none
    for method, curves in of_methods.items():
        scores = np.concatenate(
            [c.scores_SE / c.starts_S[:, None] if above else c.scores_SE - c.starts_S[:, None] for c in curves]
        )
        spent = np.concatenate([c.spent["rollouts"] for c in curves]).mean(0) / 1000
        if method in palette:
            draw_band(axis, spent, scores, palette[method], method, look(method).dash)
        else:
            axis.plot(spent, scores.mean(0), color=GREY, linewidth=1, zorder=1)
    axis.axhline(1 if above else 0, color=INK, linewidth=0.8, linestyle=":")
    words, of = metric_words(metric), "over" if above else "minus"
    axis.set(xlabel="generated rollouts (thousands)", ylabel=f"{words}, {of} the base policy's", title=words)
    better(axis, "up")


def _draw_parts(axis: Axes, parts: dict[str, Any]) -> None:
    names, metrics = list(PARTS), _with_curves(list(parts))
    width = 0.8 / len(metrics)
    for index, metric in enumerate(metrics):
        cells = [parts[metric][name]["relative_difference"] for name in names]
        middle = 100 * np.array([cell["value"] for cell in cells])
        reach = np.abs(100 * np.array([[cell["low"], cell["high"]] for cell in cells]).T - middle)
        place = np.arange(len(names)) + width * (index - (len(metrics) - 1) / 2)
        axis.errorbar(middle, place, xerr=reach, fmt="o", capsize=2, label=metric_words(metric))
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set(yticks=np.arange(len(names)), yticklabels=names, xlabel="change of the final score (%)")
    axis.set_title("Parts of recast's gain over grpo (SGD)")
    better(axis, "right")
    axis.invert_yaxis()
    axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(metrics))


def _world_mean(found: Comparison, column: str) -> float:
    return float(found.reported_worlds[column].to_numpy().mean())


def _base(found: Comparison, metric: str) -> float:
    return float(np.concatenate([found.curves(s, found.methods[0], metric).starts_S for s in found.settings]).mean())
