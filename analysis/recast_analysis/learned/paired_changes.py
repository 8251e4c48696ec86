"""Changes of figures over prompts, with intervals over users. Axes: N prompts, U users with a prompt that has the figure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_analysis.learned.candidate_scores import Floats
from recast_analysis.measures.power import LEVEL, smallest_effect
from recast_analysis.measures.statistics import Interval, mean_interval

FEWEST = 10  # users whose figure changed: with fewer a t interval is no guide, and none is judged by


@dataclass(frozen=True)
class Change:
    """A mean before and after, and the paired difference with its 95 % t interval over users.

    Attributes:
        prompts: that have the figure.
        changed: users whose mean differs.
        smallest_effect: the difference that so many users show with 80 % power; None where nothing varies.
    """

    name: str
    before: float
    after: float
    difference: Interval
    prompts: int
    changed: int
    smallest_effect: float | None

    @property
    def p(self) -> float | None:
        """Of a difference of 0; None where too few users changed to say."""
        return self.difference.p if self.changed >= FEWEST else None

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies above or below 0, else 0."""
        if self.p is None:
            return 0
        return int(self.difference.above > 0) - int(self.difference.below < 0)


def change(name: str, before_N: Floats, after_N: Floats, unit_N: NDArray[np.int64], level: float = LEVEL) -> Change | None:
    """The change of one figure; None where fewer than two users have it. `level` is that of the smallest effect."""
    there_N = np.isfinite(before_N) & np.isfinite(after_N)
    before, after = before_N[there_N], after_N[there_N]
    unit = np.unique(unit_N[there_N], return_inverse=True)[1]
    if not len(unit) or unit.max() < 1:
        return None
    value_U, changed = per_user(after - before, unit)
    scatter = float(value_U.std(ddof=1))
    seen = smallest_effect(scatter, len(value_U), level) if scatter > 0 else None
    return Change(name, float(before.mean()), float(after.mean()), mean_interval(value_U), len(before), changed, seen)


def per_user(difference_N: Floats, unit_N: NDArray[np.int64]) -> tuple[Floats, int]:
    """A value for each of U users whose mean is that over prompts, and how many users have a difference at all.

    Users have different numbers of prompts, so the mean is a ratio of two sums; a user's value is the mean and the user's
    share in its error, to first order.
    """
    count_U = np.bincount(unit_N).astype(np.float64)
    total_U = np.bincount(unit_N, weights=difference_N)
    mean = total_U.sum() / count_U.sum()
    error_U = (total_U - mean * count_U) * len(count_U) / count_U.sum()
    return mean + error_U, int((np.bincount(unit_N, weights=np.abs(difference_N)) > 0).sum())
