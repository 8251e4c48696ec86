"""A measurement of a claim and its verdict. The rules stand in `paper.py`; nothing here is decided by hand."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_analysis.claims.paper import ENOUGH
from recast_analysis.measures.metric_names import SAMPLED
from recast_analysis.measures.statistics import Interval, mean_interval

HOLDS, WHERE, FAILS, OPEN = "holds", "holds where", "does not hold", "undecided"
NOT_PAPERS = "not the paper's metric"
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
    metric: str = "",
) -> Row:
    """Claim, paper, ours, low, high, seeds, setting, metric, verdict; a figure that is not finite, or an end of no interval, is
    None. Sampled Pass@1 gets no verdict: the paper's Pass@1 is the first beam's, and temperature alone moves the sampled one.

    Args:
        met: whether an interval meets the criterion.
        reaches: whether an interval that does not meet it holds the paper's own figure as well; then it is undecided.
        fewest: undecided with fewer seeds.
    """
    value, low, high = (float(v) if v is not None and np.isfinite(v) else None for v in (ours.value, ours.low, ours.high))
    verdict = OPEN if ours.n < fewest else HOLDS if met(ours) else OPEN if reaches(ours) else FAILS
    figures = {"ours": value, "low": low, "high": high, "seeds": ours.n}
    words = {"setting": setting, "metric": metric, "verdict": NOT_PAPERS if metric == SAMPLED else verdict}
    return {"claim": claim, "paper": paper, **figures, **words}


def judged_factor(
    claim: int, paper: str, ours: Interval, setting: str, factor: float, nothing: float, fewest: int = FEWEST
) -> Row:
    """A factor held against the paper's: reached, better than `nothing` ("holds where"), or neither. Where one seed is enough
    (a count, a clock on one machine), its figure stands without an interval."""
    if fewest == 1 and ours.low is None:
        ours = Interval(ours.value, ours.value, ours.value, ours.n)
    row = judged(claim, paper, ours, setting, lambda i: i.above >= ENOUGH * factor, fewest=fewest)
    if row["verdict"] == FAILS and ours.above > nothing:
        row |= {"verdict": WHERE, "setting": f"{setting}; not by the paper's factor"}
    return row


def over_seeds(values_S: NDArray[np.float64]) -> Interval:
    """Mean and t interval."""
    return mean_interval(values_S)


def interval_words(row: Row) -> str:
    """A row's figure and interval, the figure alone where there is none."""
    ours, low, high = (None if row[key] is None else f"{row[key]:.3g}" for key in ("ours", "low", "high"))
    return str(ours) if row["seeds"] == 1 or low is None or high is None else f"{ours} [{low}, {high}]"


def with_where(rows: Iterable[Row]) -> list[Row]:
    """Sorted by claim; where only some rows of a claim's statement hold, those hold where their setting says."""
    found = sorted(rows, key=lambda row: row["claim"])
    for row in found:
        same = {other["verdict"] for other in found if (other["claim"], other["paper"]) == (row["claim"], row["paper"])}
        if row["verdict"] == HOLDS and not same <= {HOLDS, NOT_PAPERS}:
            row["verdict"] = WHERE
    return found
