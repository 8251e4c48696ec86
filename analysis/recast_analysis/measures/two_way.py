"""Paired differences over seeds and prompts, both drawn: the test of their mean, and its power. Axes: S seeds, P prompts.

D_SP = mean + a seed's own + a prompt's own + rest, so the mean's variance is seeds / S + prompts / P + rest / (S P). It is
estimated as in `crossed_means`, whose users ask different prompts in every seed; here all seeds share them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from recast_analysis.measures.crossed_means import crossed_error, mean_squares
from recast_analysis.measures.power import power_of_t
from recast_analysis.measures.statistics import Interval, mean_interval


@dataclass(frozen=True)
class TwoWayParts:
    """Variances of a paired difference: between seeds, between prompts, and of one prompt in one seed beyond both."""

    seeds: float
    prompts: float
    rest: float

    def power(self, effect: float, seeds: int, prompts: int) -> float:
        """Chance that `two_way_interval` tells a mean difference from 0, one seed being no sample of seeds.

        Raises:
            ValueError: no seed, or fewer than two prompts.
        """
        if seeds < 1 or prompts < 2:
            raise ValueError(f"seeds, prompts: {seeds} and {prompts} must be at least 1 and 2")
        if seeds == 1:
            error, freedom = ((self.prompts + self.rest) / prompts) ** 0.5, float(prompts - 1)
        else:
            squares = seeds * self.prompts + self.rest, prompts * self.seeds + self.rest, self.rest
            error, freedom = _error(*squares, seeds, prompts)
        return 1.0 if error == 0 else power_of_t(effect / error, freedom)


def two_way_interval(difference_SP: NDArray[np.float64]) -> Interval:
    """The mean difference over seeds and prompts with its 95 % interval and p-value; of one seed over prompts alone.

    Raises:
        ValueError: not (seeds, prompts), fewer than two prompts, or a value that is not finite.
    """
    difference_SP = np.asarray(difference_SP, dtype=np.float64)
    if difference_SP.ndim != 2 or difference_SP.shape[1] < 2 or not len(difference_SP):
        raise ValueError(f"difference_SP: shape {difference_SP.shape} must be (seeds, prompts) with two prompts or more")
    if not np.isfinite(difference_SP).all():
        raise ValueError("difference_SP: must be finite; leave out prompts that a seed was not measured on")
    S, P = difference_SP.shape
    if S == 1:
        return mean_interval(difference_SP[0])
    mean = float(difference_SP.mean())
    error, freedom = _error(*mean_squares(difference_SP.T), S, P)
    if error == 0:
        return Interval(mean, mean, mean, S, float(mean == 0))
    law: Any = scipy.stats.t(freedom)
    reach = float(law.ppf(0.975)) * error
    return Interval(mean, mean - reach, mean + reach, S, float(2 * law.sf(abs(mean) / error)))


def _error(of_prompts: float, of_seeds: float, rest: float, S: int, P: int) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom; with prompts that do not differ beyond the rest, of a t interval
    over seeds, so that seeds without a scatter of their own cost no power."""
    if of_prompts <= rest:
        return (of_seeds / (S * P)) ** 0.5, float(S - 1)
    return crossed_error(of_prompts, of_seeds, rest, P, S)
