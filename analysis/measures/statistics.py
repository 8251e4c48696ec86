"""Intervals over seeds. A value that was not reached (censored) is infinite, and stays so in an interquartile mean."""

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
    values: Sequence[float],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int = 0,
    strata: Sequence[object] | None = None,
) -> Interval:
    """95 % percentile bootstrap of a statistic over seeds.

    Args:
        values: one number a seed, inf where censored.
        statistic: maps (resamples, n) to (resamples,).
        strata: a label a value (the setting it comes from); each stratum is resampled within itself (arXiv 2108.13264).

    Raises:
        ValueError: no values, or labels of another number.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("values: empty; give at least one seed")
    labels = np.zeros(len(data)) if strata is None else np.asarray([str(label) for label in strata])
    if len(labels) != len(data):
        raise ValueError(f"strata: {len(labels)} labels for {len(data)} values; give one a value")
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = np.concatenate([part[rng.integers(0, len(part), (_RESAMPLES, len(part)))] for part in parts], axis=1)
    spread = np.sort(statistic(data[drawn]))
    low, high = spread[int(0.025 * _RESAMPLES)], spread[int(0.975 * _RESAMPLES) - 1]
    return Interval(float(statistic(data[None])[0]), float(low), float(high), len(data))


def iqm(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interquartile mean along axis 1: the mean without the lowest and the highest quarter (arXiv 2108.13264).

    A quarter of n is rounded down; infinite values in the middle make it infinite.
    """
    cut = sample.shape[1] // 4
    return np.sort(sample, axis=1)[:, cut : sample.shape[1] - cut].mean(axis=1)


def mean(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along axis 1."""
    return sample.mean(axis=1)


def mean_band(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Low, mean and high of each column over the rows (seeds): `bootstrap` of each, with the same resamples for all."""
    drawn = np.random.default_rng(0).integers(0, len(sample), (_RESAMPLES, len(sample)))
    weights = (drawn[..., None] == np.arange(len(sample))).mean(1)
    spread = np.sort(weights @ sample, axis=0)
    return spread[int(0.025 * _RESAMPLES)], sample.mean(0), spread[int(0.975 * _RESAMPLES) - 1]
