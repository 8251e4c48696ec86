"""Relative differences of two models' means over test prompts where both seeds and users are drawn.

Every seed draws its own semantic IDs, model and prompts; every user stands in several seeds. The standard error of a ratio of
means is that of its linear part, split into users, seeds and the rest by a two-way analysis of variance without replication
(Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). A bootstrap over seeds and users counts the rest three
times (Owen 2007, 10.1214/07-AOAS122), so that its intervals are too wide. Axes: S seeds, U users.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """One model's metric: sums over a user's test prompts and their number, (U, S); 0 where a seed did not ask a user."""

    sums_US: Floats
    count_US: Floats

    @property
    def of_seed_S(self) -> Floats:
        """The mean over the prompts of each seed."""
        return self.sums_US.sum(0) / self.count_US.sum(0)


def scored(rows: pl.DataFrame, metric: str, seeds: list[int], users: list[int]) -> Scored:
    """The tables of one model from a row a seed and user."""
    place_U, place_S = ({value: at for at, value in enumerate(values)} for values in (users, seeds))
    at = ([place_U[user] for user in rows["user"]], [place_S[seed] for seed in rows["seed"]])
    tables = np.zeros((2, len(users), len(seeds)))
    for table, column in zip(tables, (metric, "prompts"), strict=True):
        table[at] = rows[column].to_numpy()
    return Scored(*tables)


def relative_change(ours: Scored, other: Scored) -> dict[str, float | None] | None:
    """Ours over the other, minus 1, with its 95 % t interval and the smallest change that is seen with 80 % power.

    Values are means over seeds of the means over their prompts. Of one seed the interval holds the users' chance alone, of one
    user the seeds'; of one of each there is none. None where the other's mean is 0.
    """
    base = float(other.of_seed_S.mean())
    if base == 0:
        return None
    ratio = float(ours.of_seed_S.mean()) / base
    linear_US = (_linear(ours) - ratio * _linear(other)) / base
    error, freedom = _standard_error(linear_US)
    value = ratio - 1
    if not freedom:
        return {"value": value, "low": None, "high": None, "smallest_effect": None}
    law: Any = scipy.stats.t(freedom)
    reach, power = float(law.ppf(0.975)), float(law.ppf(0.8))
    return {
        "value": value,
        "low": value - reach * error,
        "high": value + reach * error,
        "smallest_effect": (reach + power) * error,
    }


def _linear(model: Scored) -> Floats:
    """What each user and seed adds to the mean over seeds, (U, S), of mean 0."""
    of_seed_S = model.of_seed_S
    within_US = (model.sums_US - of_seed_S * model.count_US) / model.count_US.mean(0)
    return within_US + (of_seed_S - of_seed_S.mean())


def _standard_error(linear_US: Floats) -> tuple[float, float]:
    """Of the mean over users and seeds, and its degrees of freedom by Satterthwaite; (0, 0) of one user and one seed."""
    U, S = linear_US.shape
    of_user_U, of_seed_S = linear_US.mean(1), linear_US.mean(0)
    if S == 1 or U == 1:
        alone = of_user_U if S == 1 else of_seed_S
        n = len(alone)
        return (float(alone.std(ddof=1)) / n**0.5, n - 1) if n > 1 else (0.0, 0)
    users, seeds, rest = mean_squares(linear_US)
    return crossed_error(max(users, rest), max(seeds, rest), rest, U, S)  # a component of variance is not negative


def mean_squares(value_US: Floats) -> tuple[float, float, float]:
    """Of users, seeds and the rest, for two and more of each."""
    U, S = value_US.shape
    of_user_U, of_seed_S = value_US.mean(1) - value_US.mean(), value_US.mean(0) - value_US.mean()
    rest_US = value_US - value_US.mean() - of_user_U[:, None] - of_seed_S
    users, seeds = S * (of_user_U**2).sum() / (U - 1), U * (of_seed_S**2).sum() / (S - 1)
    return float(users), float(seeds), float((rest_US**2).sum() / ((U - 1) * (S - 1)))


def crossed_error(users: float, seeds: float, rest: float, U: int, S: int) -> tuple[float, float]:
    """Standard error of a mean over users and seeds from their mean squares, and its degrees of freedom by Satterthwaite."""
    mean_square = users + seeds - rest
    if mean_square == 0:
        return 0.0, float(S - 1)
    parts, free = np.array([users, seeds, -rest]), np.array([U - 1, S - 1, (U - 1) * (S - 1)])
    return float((mean_square / (U * S)) ** 0.5), float(mean_square**2 / (parts**2 / free).sum())
