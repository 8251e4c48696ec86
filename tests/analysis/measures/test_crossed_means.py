"""Relative differences over seeds and users: by hand, against a model fitted to balanced data, and how often they cover."""

import numpy as np
import polars as pl
import pytest
import scipy

from recast_analysis.measures.crossed_means import Scored, relative_change, scored


def test_the_value_is_the_ratio_of_means_over_seeds_of_means_over_prompts() -> None:
    ours = Scored(np.array([[1.0, 0.0], [1.0, 3.0]]), np.array([[1.0, 0.0], [3.0, 4.0]]))  # means 1/2 and 3/4
    other = Scored(np.array([[0.0, 0.0], [1.0, 1.0]]), ours.count_US)  # 1/4 and 1/4
    change = relative_change(ours, other)
    assert change is not None
    assert change["value"] == pytest.approx(0.625 / 0.25 - 1)


def test_rows_find_their_user_and_seed_in_any_order() -> None:
    rows = pl.DataFrame({"seed": [9, 4, 9], "user": [30, 10, 10], "hr": [5.0, 2.0, 1.0], "prompts": [6, 3, 2]})
    found = scored(rows, "hr", [4, 9], [10, 20, 30])
    assert found.sums_US.tolist() == [[2, 1], [0, 0], [0, 5]]
    assert found.count_US.tolist() == [[3, 2], [0, 0], [0, 6]]


def test_seeds_alone_give_the_plain_t_interval() -> None:
    of_seed_S = np.array([1.2, 1.5, 1.1, 1.6])
    count = np.ones((50, 4))
    change = relative_change(Scored(count * of_seed_S, count), Scored(count, count))
    assert change is not None
    expected = scipy.stats.t.interval(0.95, 3, of_seed_S.mean() - 1, scipy.stats.sem(of_seed_S))
    assert [change["low"], change["high"]] == pytest.approx(expected)


@pytest.mark.parametrize(("users", "seeds"), [(40, 1), (1, 6)])
def test_of_one_seed_or_one_user_the_other_alone_makes_the_interval(users: int, seeds: int) -> None:
    values = np.random.default_rng(0).normal(1.3, 0.2, (users, seeds))
    count = np.ones((users, seeds))
    change = relative_change(Scored(values, count), Scored(count, count))
    assert change is not None
    n = users * seeds
    expected = scipy.stats.t.interval(0.95, n - 1, values.mean() - 1, scipy.stats.sem(values.ravel()))
    assert [change["low"], change["high"]] == pytest.approx(expected)


def test_one_user_of_one_seed_has_no_interval_and_a_start_of_zero_no_change() -> None:
    one = Scored(np.ones((1, 1)), np.ones((1, 1)))
    assert relative_change(one, one) == {"value": 0, "low": None, "high": None, "smallest_effect": None}
    assert relative_change(one, Scored(np.zeros((1, 1)), np.ones((1, 1)))) is None


def test_what_is_equal_in_both_models_leaves_no_interval() -> None:
    rng = np.random.default_rng(1)
    own = Scored(rng.random((30, 5)), np.ones((30, 5)))
    assert relative_change(own, own) == pytest.approx({"value": 0, "low": 0, "high": 0, "smallest_effect": 0}, abs=1e-12)


def coverage(seeds: int, users: int, seed_sd: float, user_sd: float, noise: float, repeats: int = 1500) -> tuple[float, float]:
    """How often the interval holds the true change of .3, and the mean of its half width over the scatter of the estimate."""
    rng = np.random.default_rng(2)
    held, reach, found = 0, [], []
    for _ in range(repeats):
        count = rng.integers(1, 4, (users, 1)) * (rng.random((users, seeds)) < 0.8)  # seeds ask other users
        count[0] = 1
        effect = rng.normal(0, seed_sd, (2, 1, seeds)) + rng.normal(0, user_sd, (2, users, 1))
        mean = np.array([1.0, 1.3])[:, None, None] + effect + rng.normal(0, noise, (2, users, seeds))
        change = relative_change(Scored(mean[1] * count, count * 1.0), Scored(mean[0] * count, count * 1.0))
        assert change is not None
        assert change["low"] is not None
        assert change["high"] is not None
        held += change["low"] <= 0.3 <= change["high"]
        reach.append((change["high"] - change["low"]) / 2)
        found.append(change["value"])
    return held / repeats, float(np.mean(reach) / np.std(found))


@pytest.mark.parametrize(
    ("seeds", "users", "seed_sd", "user_sd", "noise"),
    [(10, 200, 0.03, 0.0, 0.3), (10, 200, 0.0, 0.4, 0.3), (10, 200, 0.03, 0.3, 0.3), (5, 100, 0.05, 0.3, 0.1)],
)
def test_intervals_cover(seeds: int, users: int, seed_sd: float, user_sd: float, noise: float) -> None:
    share, _ = coverage(seeds, users, seed_sd, user_sd, noise)
    assert 0.93 <= share <= 0.97


def test_of_noise_alone_intervals_are_hardly_too_wide() -> None:
    share, reach = coverage(seeds=10, users=200, seed_sd=0, user_sd=0, noise=0.5)
    assert 0.93 <= share <= 0.99
    assert reach < 1.2 * float(scipy.stats.t(9).ppf(0.975))
