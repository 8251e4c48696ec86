import numpy as np
import polars as pl
import pytest

from analysis.budget import budget_ratio, final_score, rollouts_to_reach
from analysis.statistics import bootstrap, mean, median


def evals(*scores: float) -> pl.DataFrame:
    return pl.DataFrame({"rollouts": [100 * i for i in range(len(scores))], "pass_at_1_sampled": list(scores)})


def test_crossing_is_interpolated_and_first() -> None:
    frame = evals(0.0, 0.2, 0.4, 0.1, 0.5)
    assert rollouts_to_reach(frame, "pass_at_1_sampled", 0.3) == pytest.approx(150)
    assert rollouts_to_reach(frame, "pass_at_1_sampled", 0.0) == 0
    assert rollouts_to_reach(frame, "pass_at_1_sampled", 0.6) == np.inf
    assert final_score(frame, "pass_at_1_sampled") == pytest.approx((0.4 + 0.1 + 0.5) / 3)


def test_ratio_names_censored_seeds_and_never_hides_them() -> None:
    baseline = {seed: evals(0.0, 0.1, 0.3, 0.3, 0.3) for seed in range(5)}
    fast, never = evals(0.0, 0.6, 0.6, 0.6, 0.6), evals(0.0, 0.1, 0.1, 0.1, 0.1)
    ratio = budget_ratio({0: fast, 1: fast, 2: fast, 3: never, 4: never}, baseline)
    assert ratio.median == pytest.approx(50 / 400)
    assert ratio.censored == [3, 4]
    assert ratio.low == pytest.approx(50 / 400)
    assert ratio.high is None
    assert budget_ratio(dict.fromkeys(range(5), never), baseline).median is None


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [(i := bootstrap(rng.normal(1.0, 1.0, 30).tolist(), mean, seed)).low <= 1.0 <= i.high for seed in range(200)]
    assert 0.88 < np.mean(covered) < 0.99


def test_median_keeps_infinities() -> None:
    assert median(np.array([[1.0, np.inf, 2.0], [1.0, np.inf, np.inf]])).tolist() == [2.0, np.inf]
    with pytest.raises(ValueError, match="empty"):
        bootstrap([], mean)
