"""Learning told from sharpening, as tables."""

from collections.abc import Mapping
from typing import Any

from recast_analysis.drawing.words import interval_text, metric_words
from recast_analysis.reports.report import Table

_NOTE = (
    "base_temperature and base_level_weights train nothing: the base policy at the temperature, or at one number a level, that "
    "fits validation prompts best. Greedy Pass@1 and Recall@10: change from the base policy; own levels: both sides "
    "stand at theirs, so that such numbers buy nothing. Calibrated log-likelihood: at the best temperatures, so that cooling "
    "buys nothing. Sampled Pass@1: change in units of the base policy's; sharpened: what the base policy gains where it is "
    "cooled to the method's entropy; learned: the rest. All at the rate tuned for {metric}; 95 % t intervals over worlds."
)


def learning_tables(learning: Mapping[str, Any]) -> list[Table | str]:
    """What was learned, then what of sampled Pass@1 is sharpening, from `learning_rows`; over all settings and in each."""
    shown = _two_tables(learning["rows"], "")
    for setting, rows in learning.get("by_setting", {}).items():
        shown += _two_tables(rows, f"{setting}: ")
    return [*shown, _NOTE.format(metric=metric_words(learning["metric"]))]


def _two_tables(rows: Mapping[str, Any], where: str) -> list[Table | str]:
    ranked = (
        ("greedy", "recall", "greedy_levels", "recall_levels"),
        ("greedy", "Recall@10", "greedy, own levels", "Recall@10, own levels"),
    )
    learned = [
        (name, *(_percent(row[key]) for key in ranked[0]), _plain(row["calibrated"], " nats")) for name, row in rows.items()
    ]
    sampled = [
        (name, _plain(row["entropy"]), *(_percent(row[key]) for key in ("sampled", "sharpened", "learned")))
        for name, row in rows.items()
    ]
    return [
        Table(
            f"{where}what was learned: no temperature buys it", ("", "greedy Pass@1", *ranked[1][1:], "calibrated LL"), learned
        ),
        Table(f"{where}sampled Pass@1: sharpened or learned", ("", "entropy", "change", "sharpened", "learned"), sampled),
    ]


def _percent(interval: Mapping[str, Any] | None) -> str:
    return "" if interval is None else interval_text(interval, percent=True)


def _plain(interval: Mapping[str, Any] | None, unit: str = "") -> str:
    return "" if interval is None else interval_text(interval) + unit
