"""Differences of two models on the same test prompts: by hand, and over users."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recast_analysis.measures.paired_bootstrap import paired_differences


def difference(
    ours_N: NDArray[np.float64], start_N: NDArray[np.float64], user_N: NDArray[np.int64], seed: int
) -> dict[str, float]:
    return paired_differences({"hr@10": ours_N}, {"hr@10": start_N}, user_N, seed)["hr@10"]


def test_difference_by_hand_and_its_interval_over_users() -> None:
    user, zero = np.array([0, 0, 0, 1]), np.zeros(4)
    found = difference(np.array([1.0, 1.0, 1.0, 0.0]), zero, user, seed=0)
    assert found["difference"] == pytest.approx(0.75)
    assert (found["low"], found["high"]) == (0.0, 1.0)
    # two users drawn twice: means 1 and 0 a quarter of the time each, 3/4 half of it
    outcomes = np.array([1.0, 0.0, 0.75, 0.75])
    assert found["standard_error"] == pytest.approx(outcomes.std(), abs=0.02)
    assert found["smallest_effect"] == pytest.approx(2.8 * found["standard_error"])
    assert difference(zero, zero, user, 0)["high"] == 0.0
    with pytest.raises(ValueError, match="give the same"):
        difference(zero[:3], zero, user, 0)


def test_users_not_prompts_are_drawn() -> None:
    rng = np.random.default_rng(0)
    per_user = rng.normal(size=200)
    values, users = np.repeat(per_user, 10), np.repeat(np.arange(200), 10)
    error = difference(values, np.zeros(2000), users, 0)["standard_error"]
    assert error == pytest.approx(per_user.std() / np.sqrt(200), rel=0.1)


def test_each_metric_sees_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    users, start = rng.integers(0, 9, 40), np.zeros(40)
    ours = {"a": rng.random(40), "b": rng.random(40)}
    found = paired_differences(ours | {"c": ours["a"]}, dict.fromkeys("abc", start), users, 0)
    assert found["a"] == found["c"] == difference(ours["a"], start, users, 0)
    assert found["b"] == difference(ours["b"], start, users, 0)
