"""Intervals over seeds. A value that was not reached (censored) is infinite, and stays so in a median."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % percentile-bootstrap interval over `n` seeds; any of the three may be infinite."""

    value: float
    low: float
    high: float
    n: int


def bootstrap(
    values: Sequence[float], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], seed: int = 0
) -> Interval:
    """95 % percentile bootstrap of a statistic over seeds.

    Args:
        values: one number a seed, inf where censored.
        statistic: maps (resamples, n) to (resamples,).

    Raises:
        ValueError: no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("values: empty; give at least one seed")
    drawn = np.random.default_rng(seed).integers(0, len(data), (_RESAMPLES, len(data)))
    spread = np.sort(statistic(data[drawn]))
    low, high = spread[int(0.025 * _RESAMPLES)], spread[int(0.975 * _RESAMPLES) - 1]
    return Interval(float(statistic(data[None])[0]), float(low), float(high), len(data))


def median(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median along axis 1, the upper one of an even count, so that infinite values need no arithmetic."""
    return np.sort(sample, axis=1)[:, sample.shape[1] // 2]


def mean(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along axis 1."""
    return sample.mean(axis=1)
