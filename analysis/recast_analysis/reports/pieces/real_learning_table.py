"""Learning told from sharpening in real runs, as a table."""

from collections.abc import Mapping
from typing import Any

from recast_analysis.drawing.words import interval_text
from recast_analysis.measures.real_learning import CHANGES, PARTS
from recast_analysis.reports.report import Table

_HEADER = ("", "greedy, own levels", "hr@10, own levels", "calibrated LL", "entropy", "T", "Pass@1 sampled", *PARTS)
LEARNING_NOTE = (
    "Learning or sharpening: change from the start, 95 % t interval over {over}. Own levels: both at the temperatures of their "
    "levels that fit validation prompts, so that such numbers buy nothing; calibrated LL: log-likelihood of a target there, "
    "nats. T: the one temperature that fits them best. Sampled Pass@1 splits in two: sharpened is what the start gains where "
    "its entropy is the model's, learned the rest (docs/learning.md)."
)


def learning_table(rows: Mapping[str, Mapping[str, Any]], title: str, note: str = "") -> Table:
    """The rows of `learning_changes`, which `LEARNING_NOTE` explains; the start has no change from itself."""
    lines = []
    for name, row in rows.items():
        cells = [_percent(row[key]) if key != "calibrated_log_likelihood" else interval_text(row[key]) for key in CHANGES]
        shown = [
            *cells[:3],
            f"{row['entropy']:.2f}",
            f"{row['temperature']:.2f}",
            cells[3],
            *(_percent(row[key]) for key in PARTS),
        ]
        lines.append((name, *(["", "", "", *shown[3:5], "", "", ""] if name == "start" else shown)))
    return Table(f"{title}: learning or sharpening (percentage points)", _HEADER, lines, note=note)


def _percent(interval: Mapping[str, Any]) -> str:
    return interval_text({key: interval[key] and 100 * interval[key] for key in ("value", "low", "high")})
