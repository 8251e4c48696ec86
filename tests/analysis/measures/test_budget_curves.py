import numpy as np
import polars as pl
import pytest

from analysis.measures.budget_curves import Curves, budget_ratio, crossing, matched_log_ratio
from analysis.measures.statistics import bootstrap, iqm, mean


def curves(*runs: tuple[float, ...]) -> Curves:
    frames = {
        seed: pl.DataFrame(
            {"rollouts": [100 * i for i in range(len(run))], "optimiser_steps": list(range(len(run))), "s": list(run)}
        )
        for seed, run in enumerate(runs)
    }
    return Curves.of(frames, "s")


SPENT = np.array([0.0, 100, 200, 300, 400])


def test_crossing_is_interpolated_and_must_hold() -> None:
    scores = np.array([0.0, 0.4, 0.2, 0.4, 0.5])
    assert crossing(scores, SPENT, 0.3) == pytest.approx(250)  # the first time it did not stay
    assert crossing(scores, SPENT, 0.3, hold=1) == pytest.approx(75)
    assert crossing(scores, SPENT, 0.0) == 0
    assert crossing(scores, SPENT, 0.45) == pytest.approx(350)  # to the end counts as holding
    assert crossing(scores, SPENT, 0.6) == np.inf


def test_ratio_names_censored_seeds_and_never_hides_them() -> None:
    baseline = curves(*[(0.0, 0.1, 0.3, 0.3, 0.3)] * 5)
    fast, never = (0.0, 0.6, 0.6, 0.6, 0.6), (0.0, 0.1, 0.1, 0.1, 0.1)
    ratio = budget_ratio([curves(fast, fast, fast, fast, never)], [baseline])
    assert ratio.value == pytest.approx(50 / 400)
    assert ratio.censored == [4]
    assert ratio.low == pytest.approx(50 / 400)
    assert ratio.high is None
    assert ratio.trivial == 0
    assert budget_ratio([curves(fast)], [curves(never[::-1])]).trivial == 1
    assert budget_ratio([curves(*[never] * 5)], [baseline]).value is None
    with pytest.raises(ValueError, match="seeds: "):
        budget_ratio([curves(fast)], [baseline])


def test_matched_ratio_is_symmetric_and_never_censored() -> None:
    slow, fast = curves((0.0, 0.1, 0.2, 0.3, 0.3, 0.3)), curves((0.0, 0.6, 0.6, 0.6, 0.6, 0.6))
    against = matched_log_ratio(slow, fast)
    assert against == pytest.approx(-matched_log_ratio(fast, slow))
    assert against == pytest.approx(np.log10(3 / 0.5))
    falls = curves((0.2, 0.1, 0.0, 0.0, 0.0, 0.0))
    assert matched_log_ratio(fast, falls).tolist() == [-2]  # only one gains
    assert matched_log_ratio(falls, fast).tolist() == [2]
    assert matched_log_ratio(falls, falls).tolist() == [0]


def test_a_run_that_broke_off_keeps_its_last_score() -> None:
    frame = pl.DataFrame({"rollouts": [0, 100], "s": [0.5, 0.1]})
    whole = pl.DataFrame({"rollouts": [0, 100, 200, 300], "s": [0.5, 0.6, 0.6, 0.6]})
    both = Curves.of({0: whole, 1: frame}, "s")
    assert both.scores_SE[1].tolist() == [0.5, 0.1, 0.1, 0.1]
    assert both.finals_S == pytest.approx([0.6, 0.1])
    assert both.starts_S.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_bootstrap_covers_the_truth_as_often_as_it_says(statistic) -> None:
    rng = np.random.default_rng(0)
    covered = [(i := bootstrap(rng.normal(1.0, 1.0, 30).tolist(), statistic, seed)).low <= 1.0 <= i.high for seed in range(200)]
    assert 0.88 < np.mean(covered) < 0.99


def test_strata_are_resampled_within_themselves() -> None:
    values, strata = [0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10
    fixed, free = bootstrap(values, mean, strata=strata), bootstrap(values, mean)
    assert fixed.low == fixed.high == 0.5
    assert free.low < 0.4
    with pytest.raises(ValueError, match="strata: 1 labels for 2"):
        bootstrap([1.0, 2.0], mean, strata=["a"])


def test_interquartile_mean_drops_the_ends_and_keeps_infinities() -> None:
    assert iqm(np.array([[0.0, 1.0, 2.0, 100.0], [1.0, 2.0, 3.0, np.inf]])).tolist() == [1.5, 2.5]
    assert iqm(np.array([[1.0, 2.0, np.inf, np.inf]])).tolist() == [np.inf]
    with pytest.raises(ValueError, match="empty"):
        bootstrap([], mean)
