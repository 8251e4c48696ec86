"""Report of the methods of a real study over one of them."""

from pathlib import Path
from typing import Any

from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.study_changes import METRICS, changes_over
from recast_analysis.reports.report import Report, Table

_NOTE = (
    "Means over {seeds} seeds; in brackets the 95 % t interval over seeds and users, paired in both. "
    "Sampled Pass@1 can be bought by cooling."
)


def report(root: Path, over: str) -> Report:
    """For each starting point a table of the changes over a method.

    Raises:
        RunError: the study is not finished, or has no method of that name.
    """
    summary = changes_over(root, over)
    tables = [_table(f"{label}: change over {over}", changes, over) for label, changes in summary["settings"].items()]
    return Report(summary, [*tables, _NOTE.format(seeds=summary["seeds"])])


def _table(title: str, changes: dict[str, Any], over: str) -> Table:
    names = [name for name in changes[METRICS[0]] if name != over]
    return Table(title, ("", *METRICS), [(name, *(_cell(changes[metric][name]) for metric in METRICS)) for name in names])


def _cell(change: dict[str, float | None] | None) -> str:
    return "" if change is None else interval_text(change, percent=True)
