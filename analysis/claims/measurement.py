"""A measurement of a claim and its verdict. The rules stand in `paper.py`; nothing here is decided by hand."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.claims.paper import ENOUGH
from analysis.measures.statistics import Interval, bootstrap, iqm

HOLDS, WHERE, FAILS, OPEN = "holds", "holds where", "does not hold", "undecided"
FEWEST = 3  # seeds of an interval that decides anything
Row = dict[str, Any]


def judged(
    claim: int,
    paper: str,
    ours: Interval,
    setting: str,
    met: Callable[[Interval], bool],
    reaches: Callable[[Interval], bool] = lambda interval: False,
    fewest: int = FEWEST,
) -> Row:
    """Claim, paper, ours, low, high, seeds, setting, verdict; a figure that is not finite (above any budget tried) is None.

    Args:
        met: whether an interval meets the criterion.
        reaches: whether an interval that does not meet it holds the paper's own figure as well; then it is undecided.
        fewest: undecided with fewer seeds.
    """
    value, low, high = (float(v) if np.isfinite(v) else None for v in (ours.value, ours.low, ours.high))
    verdict = OPEN if ours.n < fewest else HOLDS if met(ours) else OPEN if reaches(ours) else FAILS
    figures = {"ours": value, "low": low, "high": high, "seeds": ours.n}
    return {"claim": claim, "paper": paper, **figures, "setting": setting, "verdict": verdict}


def judged_factor(
    claim: int, paper: str, ours: Interval, setting: str, factor: float, nothing: float, fewest: int = FEWEST
) -> Row:
    """A factor held against the paper's: reached, better than `nothing` ("holds where"), or neither."""
    row = judged(claim, paper, ours, setting, lambda i: i.low >= ENOUGH * factor, fewest=fewest)
    if row["verdict"] == FAILS and ours.low > nothing:
        row |= {"verdict": WHERE, "setting": f"{setting}; not by the paper's factor"}
    return row


def over_seeds(values_S: NDArray[np.float64]) -> Interval:
    """Interquartile mean and its bootstrap interval."""
    return bootstrap(values_S.tolist(), iqm)


def interval_words(row: Row) -> str:
    """A row's figure and interval, the figure alone of one seed; >1 where it is above any budget tried."""
    ours, low, high = (">1" if row[key] is None else f"{row[key]:.3g}" for key in ("ours", "low", "high"))
    return ours if row["seeds"] == 1 else f"{ours} [{low}, {high}]"


def with_where(rows: Iterable[Row]) -> list[Row]:
    """Sorted by claim; where only some rows of a claim's statement hold, those hold where their setting says."""
    found = sorted(rows, key=lambda row: row["claim"])
    for row in found:
        same = {other["verdict"] for other in found if (other["claim"], other["paper"]) == (row["claim"], row["paper"])}
        if row["verdict"] == HOLDS and same != {HOLDS}:
            row["verdict"] = WHERE
    return found
