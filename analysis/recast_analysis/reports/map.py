"""Report of `recast-sim map` from its folder alone.

A cell's figure is how much better one method's final score is than another's in the same worlds, each at the rate tuned for
it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recast_analysis.drawing.words import gain_text
from recast_analysis.measures.budget_curves import Curves, gain
from recast_analysis.measures.comparison import Comparison
from recast_analysis.measures.learned_parts import Values
from recast_analysis.measures.metric_names import GREEDY, RECALL
from recast_analysis.measures.statistics import false_discovery
from recast_analysis.reports.pieces.map_figures import by_cell, map_figures
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError, read_run
from recast_sim.runs.table_files import read_table

BASE = "base"  # the policy before training, as the other side of a pair
LEVELS = "_levels"  # of a metric at both sides' own numbers for the levels, which no such number buys
_SHOWN = {"greedy_and_recall": (GREEDY, RECALL)}  # a metric that tunes, and those that it is read by
_DISCOVERIES = 0.05  # share of false ones among the cells that are told from 0
_NOTE = (
    "Change of the final score (held-out, mean of the last three evaluations) from second to first of a pair in the same "
    "worlds; means over {seeds} worlds, 95 % t intervals; (ns) not told from 0 at a false discovery rate of 5 % over all "
    "settings, pairs and metrics; equal: the same scores. base: the policy before training. Own level numbers: both sides at "
    "the numbers for their levels that fit validation prompts best, after training. Hardest miss: percent of groups in which "
    "it shares 0, 1, 2 .. codes of its prefix with the target. Rates are tuned for each metric, method and setting on other "
    "worlds."
)


def report(root: Path) -> Report:
    """A table for each metric with a row a cell and a column a pair, and heat maps.

    Raises:
        RunError: the sweep is not finished.
    """
    summary = _summary(root)
    return Report(summary, _shown(summary), lambda: map_figures(summary))


def _summary(root: Path) -> dict[str, Any]:
    """One row for each cell, metric and pair. Cells whose setting could not be calibrated are listed as `missing`."""
    found, config = Comparison.read(root / "methods"), read_run(root).manifest["config"]
    cells = read_table(root / "cells.parquet", RunError).to_dicts()
    kinds = [
        {"metric": metric + ending, "tuned_for": tuned_for}
        for tuned_for in found.metrics
        for metric in _SHOWN.get(tuned_for, (tuned_for,))
        for ending in (("", LEVELS) if metric in (GREEDY, RECALL) else ("",))
    ]
    pairs = [{"method": mine, "against": other} for mine, other in config["pairs"]]
    gains: dict[str, list[dict[str, Any]]] = {
        setting: [kind | pair | {"gain": _gain(found, [setting], **kind, **pair)} for kind in kinds for pair in pairs]
        for setting in found.settings
    }
    tests: list[float | None] = [row["gain"] and row["gain"]["p"] for rows in gains.values() for row in rows]
    q_values = iter(false_discovery(tests))  # of distinct settings, which several cells may stand for
    for row in (row for rows in gains.values() for row in rows):
        q = next(q_values)
        row |= {"q": q, "significant": q is not None and q < _DISCOVERIES}
    worlds = {setting: _world(found, setting) for setting in found.settings}
    choices = root / "methods" / "choices.parquet"
    return {
        "seeds": config["protocol"]["seeds"],
        "settings": len(found.settings),
        "pooled": [kind | pair | {"gain": _gain(found, found.settings, **kind, **pair)} for kind in kinds for pair in pairs],
        "cells": [{**cell, **worlds[cell["setting"]], **row} for cell in cells for row in gains.get(cell["setting"], ())],
        "choices": read_table(choices, RunError).to_dicts() if choices.exists() else [],
        "missing": sorted({cell["setting"] for cell in cells} - set(found.settings)),
        "run": str(root),
    }


def _gain(
    found: Comparison, settings: Sequence[str], metric: str, tuned_for: str, method: str, against: str
) -> dict[str, Any] | None:
    """The gain over some settings, each with the same weight; None where the other side never scores."""

    def curves(setting: str, name: str) -> Curves:
        return Curves.of(found.frames(setting, name, tuned_for), metric)

    ours: Values = [curves(setting, method).finals_S for setting in settings]
    theirs: Values = [
        curves(setting, method).starts_S if against == BASE else curves(setting, against).finals_S for setting in settings
    ]
    try:
        return asdict(gain(metric, ours, theirs))
    except ValueError:
        return None


def _world(found: Comparison, setting: str) -> dict[str, Any]:
    worlds = found.worlds_with("hardest_miss").filter(setting=setting)
    columns = ("all_zero", "single_hit", "multi_hit", "hit_rate", "best_possible", "base_pass_at_1_greedy")
    hardest = np.mean([list(shares) for shares in worlds["hardest_miss"]], axis=0).tolist()
    return {name: float(worlds[name].to_numpy().mean()) for name in columns} | {"hardest_miss": hardest}


def _shown(summary: dict[str, Any]) -> list[Table | str]:
    shown: list[Table | str] = [_pooled(summary)]
    for metric in dict.fromkeys(row["metric"] for row in summary["pooled"]):
        shown.append(_table(summary, metric))
    if summary["choices"]:
        shown.append(_choices(summary["choices"]))
    shown.append(_NOTE.format(**summary))
    if summary["missing"]:
        shown.append(f"not calibrated, left out: {', '.join(summary['missing'])}")
    return shown


def _pooled(summary: dict[str, Any]) -> Table:
    """All settings at once, and in how many each side of a pair is better."""
    rows = []
    for whole in summary["pooled"]:
        key = ("metric", "method", "against")
        own = {row["setting"]: row for row in summary["cells"] if all(row[k] == whole[k] for k in key)}
        told = [row["gain"]["value"] for row in own.values() if row["significant"]]
        counts = (sum(v > 0 for v in told), sum(v < 0 for v in told), len(own) - len(told))
        rows.append((_words(whole["metric"]), _pair(whole), _gain_text(whole), *map(str, counts)))
    header = ("metric", "pair", "change of the final score", "better in", "worse in", "not told")
    return Table(f"over all {summary['settings']} settings", header, rows, words=("pair",))


def _table(summary: dict[str, Any], metric: str) -> Table:
    """A row a cell, a column a pair."""
    rows = [row for row in summary["cells"] if row["metric"] == metric]
    pairs = list(dict.fromkeys(_pair(row) for row in rows))
    lines = []
    for name, cell in by_cell(rows).items():
        of_pair = {_pair(row): row for row in cell}
        near = " / ".join(f"{100 * share:.0f}" for share in cell[0]["hardest_miss"])
        lines.append((name, f"{100 * cell[0]['all_zero']:.1f} %", near, *(_cell_text(of_pair[pair]) for pair in pairs)))
    return Table(f"{_words(metric)}: change of the final score", ("cell", "all-zero", "hardest miss", *pairs), lines)


def _choices(rows: list[dict[str, Any]]) -> Table:
    """What each choice took in each setting."""
    taken = [row for row in rows if row["chosen"]]
    lines = [(row["setting"], row["choice"], row["line"], f"{row['difference']:+.4f}") for row in taken]
    return Table(
        "what was chosen, and its mean lead over the fallback on the tuning worlds", ("setting", "", "line", "lead"), lines
    )


def _words(metric: str) -> str:
    return f"{metric.removesuffix(LEVELS)}, own level numbers" if metric.endswith(LEVELS) else metric


def _pair(row: dict[str, Any]) -> str:
    return f"{row['method']} vs {row['against']}"


def _gain_text(row: dict[str, Any]) -> str:
    return "no hit" if row["gain"] is None else gain_text(row["gain"], row["metric"])


def _cell_text(row: dict[str, Any]) -> str:
    if row["gain"] and row["gain"]["value"] == 0 and row["gain"]["low"] in (0, None):
        return "equal"
    return _gain_text(row) + ("" if row["significant"] else " (ns)")
