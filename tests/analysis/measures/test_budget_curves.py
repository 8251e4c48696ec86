import numpy as np
import polars as pl
import pytest

from recast_analysis.measures.budget_curves import Curves, budget_ratio, crossing, gain, matched_log_ratio


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
    assert ratio.value == pytest.approx((4 * 50 / 400 + 1) / 5)  # the world that never gets there counts as the whole budget
    assert ratio.median == pytest.approx(50 / 400)
    assert ratio.censored == [4]
    assert ratio.low < 50 / 400 < ratio.high
    assert ratio.horizon == 1
    assert ratio.trivial == 0
    assert budget_ratio([curves(fast)], [curves(never[::-1])]).trivial == 1
    nobody = budget_ratio([curves(*[never] * 5)], [baseline])
    assert (nobody.value, nobody.low, nobody.high, nobody.median) == (1, 1, 1, None)
    one = budget_ratio([curves(fast)], [curves(baseline.scores_SE[0])])
    assert (one.value, one.low, one.high) == (pytest.approx(50 / 400), None, None)
    with pytest.raises(ValueError, match="seeds: "):
        budget_ratio([curves(fast)], [baseline])


def test_a_method_that_may_spend_less_is_censored_earlier() -> None:
    """Of a method that is cut short at half the baseline's budget the restricted mean counts at most that half."""
    baseline, never = curves(*[(0.0, 0.1, 0.3, 0.3, 0.3)] * 3), (0.0, 0.1, 0.1)
    ratio = budget_ratio([curves((0.0, 0.6, 0.6), never, never)], [baseline])
    assert ratio.horizon == 0.5
    assert ratio.value == pytest.approx((50 / 400 + 0.5 + 0.5) / 3)
    assert ratio.median is None
    assert ratio.censored == [1, 2]


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


def test_a_metric_of_the_ends_has_its_last_value_for_a_score() -> None:
    frame = pl.DataFrame({"rollouts": [0, 100, 200, 300], "s": [-5.0, None, None, -4.0]})
    found = Curves.of({0: frame}, "s")
    assert found.ends_only
    assert found.finals_S.tolist() == [-4.0]
    assert found.starts_S.tolist() == [-5.0]


def test_gains_are_ratios_of_means_and_of_log_likelihoods_differences() -> None:
    ours, theirs = np.array([0.2, 0.0, 0.4]), np.array([0.1, 0.1, 0.2])
    found = gain("pass_at_1_greedy", [ours], [theirs])
    assert found.value == pytest.approx(0.6 / 0.4 - 1)
    assert gain("pass_at_1_greedy", [2 * theirs], [theirs]).low == pytest.approx(1)
    nats = gain("calibrated_log_likelihood", [np.array([-4.0, -5.0])], [np.array([-5.0, -5.5])])
    assert nats.value == pytest.approx(0.75)
    both = gain("recall_at_k", [2 * theirs, theirs[:2]], [theirs, theirs[:2]])
    assert both.value == pytest.approx(0.5)  # each setting weighs the same
    with pytest.raises(ValueError, match="0 in every world"):
        gain("recall_at_k", [ours], [0 * theirs])
