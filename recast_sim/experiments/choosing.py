"""A method whose numbers are chosen among candidates, setting by setting, and that falls back to the first of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from recast_sim.configio import Checked
from recast_sim.field_types import Distinct
from recast_sim.training.training_config import TrainingError

LEVEL = 0.05  # chance that chance alone leaves the fallback, in a setting where no candidate is better


@dataclass(frozen=True)
class Choice(Checked, error=TrainingError):
    """Candidates under one name.

    Attributes:
        name: what the reports call it.
        fallback: the method that is taken unless a candidate is told from it; a method's name or a line.
        candidates: likewise.
    """

    name: str
    fallback: str
    candidates: Distinct[str]


def choose(choice: Choice, scores: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row for the fallback and each candidate: mean difference to the fallback, p-value, and whether it is `chosen`.

    The candidate with the largest mean among those that are better than the fallback on the tuning worlds: paired one-sided t
    test at LEVEL, by Bonferroni over the candidates; else the fallback. A candidate that broke off in a world is out.

    Args:
        scores: of the fallback and each candidate at its best rate, one a tuning world.

    Raises:
        TrainingError: fewer than two worlds, with which nothing is told from anything.
    """
    base = np.array(scores[choice.fallback])
    if len(base) < 2:
        raise TrainingError(f"Protocol.tuning_seeds: {len(base)} world cannot choose {choice.name!r}; give at least 2")
    rows: list[dict[str, Any]] = [{"line": choice.fallback, "difference": 0.0, "p": 1.0}]
    for line in choice.candidates:
        own = np.array(scores[line])
        known = bool(np.isfinite(own).all() and np.isfinite(base).all())
        test: Any = scipy.stats.ttest_rel(own, base, alternative="greater") if known and (own != base).any() else None
        rows.append(
            {
                "line": line,
                "difference": float((own - base).mean()) if known else None,
                "p": 1.0 if test is None else min(1.0, float(test.pvalue) * len(choice.candidates)),
            }
        )
    better = [row for row in rows[1:] if row["p"] < LEVEL]
    best = max(better, key=lambda row: row["difference"]) if better else rows[0]
    return [row | {"chosen": row is best} for row in rows]
