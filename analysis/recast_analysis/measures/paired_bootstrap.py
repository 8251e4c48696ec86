"""Differences between two models on the same test prompts, with intervals by a bootstrap over users.

Prompts of one user are alike, so users, not prompts, are drawn with replacement. Axis letters: N prompts, U users,
R resamples.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recast_sim.runs import derive_seed

RESAMPLES = 2000
POWER = 2.8  # standard errors of the smallest effect seen with 80 % power at the two-sided 5 % level
Rows = Mapping[str, NDArray[np.float64]]  # a metric's value on each prompt, (N,)


def paired_differences(ours: Rows, start: Rows, user_N: NDArray[np.int64], seed: int) -> dict[str, dict[str, float]]:
    """For each metric the mean over prompts of ours - start, its 95 % percentile interval and standard error, and the
    smallest visible effect. All metrics are seen under the same resamples.

    Raises:
        ValueError: no prompts, or rows of different lengths.
    """
    lengths = {len(user_N), *map(len, ours.values()), *map(len, start.values())}
    if len(lengths) > 1 or not len(user_N):
        raise ValueError(f"rows: {sorted(lengths)} prompts; give the same number in all, one or more")
    user = np.unique(user_N, return_inverse=True)[1]
    count_U = np.bincount(user).astype(float)
    rng = np.random.default_rng(derive_seed(seed, "bootstrap over users"))
    weight_RU = rng.multinomial(len(count_U), np.full(len(count_U), 1 / len(count_U)), size=RESAMPLES)
    counts_R = weight_RU @ count_U
    found = {}
    for metric, start_N in start.items():
        total_U = np.bincount(user, weights=ours[metric] - start_N)
        means_R = (weight_RU @ total_U) / counts_R
        low, high = np.quantile(means_R, [0.025, 0.975]).tolist()
        error = float(means_R.std(ddof=1))
        difference = float(total_U.sum() / count_U.sum())
        effect = {"standard_error": error, "smallest_effect": POWER * error}
        found[metric] = {"difference": difference, "low": low, "high": high, **effect}
    return found
