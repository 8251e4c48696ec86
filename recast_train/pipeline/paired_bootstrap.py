"""Differences between two models on the same test prompts, with intervals by a bootstrap over users.

Prompts of one user are alike, so users, not prompts, are drawn with replacement. Axis letters: N prompts, U users,
R resamples.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_sim.runs import derive_seed

RESAMPLES = 2000
POWER = 2.8  # standard errors of the smallest effect seen with 80 % power at the two-sided 5 % level


def paired_difference(
    ours_N: NDArray[np.float64], start_N: NDArray[np.float64], user_N: NDArray[np.int64], seed: int
) -> dict[str, float]:
    """Mean over prompts of ours - start, its 95 % percentile interval and standard error, and the smallest visible effect.

    Raises:
        ValueError: no prompts, or rows of different lengths.
    """
    if not len(user_N) or not len(ours_N) == len(start_N) == len(user_N):
        raise ValueError(f"rows: {len(ours_N)}, {len(start_N)} and {len(user_N)} prompts; give the same, one or more")
    user = np.unique(user_N, return_inverse=True)[1]
    count_U = np.bincount(user).astype(float)
    total_U = np.bincount(user, weights=ours_N - start_N)
    rng = np.random.default_rng(derive_seed(seed, "bootstrap over users"))
    weight_RU = rng.multinomial(len(count_U), np.full(len(count_U), 1 / len(count_U)), size=RESAMPLES)
    means_R = (weight_RU @ total_U) / (weight_RU @ count_U)
    low, high = np.quantile(means_R, [0.025, 0.975]).tolist()
    error = float(means_R.std(ddof=1))
    difference = float(total_U.sum() / count_U.sum())
    return {"difference": difference, "low": low, "high": high, "standard_error": error, "smallest_effect": POWER * error}


def differences(
    ours: dict[str, NDArray[np.float64]], start: dict[str, NDArray[np.float64]], user_N: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """`paired_difference` of each metric, from the metric's value on each prompt."""
    return {metric: paired_difference(ours[metric], start[metric], user_N, seed) for metric in start}
