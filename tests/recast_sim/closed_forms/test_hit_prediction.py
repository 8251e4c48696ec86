"""Predictions at other group sizes: against brute force, and how often their intervals hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, chi2

from recast_sim.closed_forms.hit_counts import Likelihood, fit_hit_counts
from recast_sim.closed_forms.hit_prediction import predict
from recast_sim.closed_forms.iid_groups import beta_regime, learnable_fraction_beta, mean_absolute_advantage


def draw(seed: int, groups: int, a: float, b: float, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.binomial(size, rng.beta(a, b, groups))


def test_shares_are_those_of_the_fitted_beta() -> None:
    hits = draw(0, 400, 1.0, 8.0, 16)
    fit = fit_hit_counts(hits, 16)
    for found in predict(fit, hits, 16, [2, 16, 200]):
        assert found.all_zero == pytest.approx(beta_regime(fit.a, fit.b, found.group_size)[0])
        assert found.learnable == pytest.approx(learnable_fraction_beta(fit.a, fit.b, found.group_size))
        assert found.all_zero_interval[0] < found.all_zero < found.all_zero_interval[1]
        assert fit.hits_pmf(found.group_size).sum() == pytest.approx(1)
        assert fit.hits_pmf(found.group_size)[0] == pytest.approx(found.all_zero)


def test_interval_is_the_range_over_all_shapes_that_are_not_rejected() -> None:
    hits = draw(1, 200, 1.0, 8.0, 8)
    fit = fit_hit_counts(hits, 8)
    (found,) = predict(fit, hits, 8, [64])
    a, b = np.meshgrid(np.geomspace(fit.a / 8, fit.a * 30, 400), np.geomspace(fit.b / 8, fit.b * 30, 400))
    counts = np.bincount(hits, minlength=9)
    loss = betabinom.logpmf(hits, 8, fit.a, fit.b).sum() - sum(n * betabinom.logpmf(k, 8, a, b) for k, n in enumerate(counts))
    inside = loss <= chi2.ppf(0.95, 1) / 2
    share = betabinom.pmf(0, 64, a, b)[inside]
    width = share.max() - share.min()
    assert found.all_zero_interval == pytest.approx((share.min(), share.max()), abs=0.012 * width)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    truth = beta_regime(1.5, 30.0, 64)[0]
    held = 0
    for seed in range(25):
        hits = draw(seed, 300, 1.5, 30.0, 16)
        (found,) = predict(fit_hit_counts(hits, 16), hits, 16, [64])
        held += found.all_zero_interval[0] <= truth <= found.all_zero_interval[1]
    assert held >= 21  # binomial(25, .95) is with probability .99


def test_equal_prompts_give_the_binomial_limit_within_the_interval() -> None:
    hits = np.random.default_rng(3).binomial(8, 0.2, 4000)
    fit = fit_hit_counts(hits, 8)
    (found,) = predict(fit, hits, 8, [16])
    assert found.all_zero_interval[0] <= 0.8**16 <= found.all_zero_interval[1]
    assert predict(fit, hits, 8, [2])[0].learnable == pytest.approx(2 * fit.mean * (1 - fit.mean), rel=0.02)


def test_likelihood_of_points_is_the_beta_binomial_one() -> None:
    hits, sizes = draw(4, 50, 1.0, 3.0, 8), np.full(50, 8)
    constant = Likelihood.of(hits, sizes)(0.25, 0.1) - betabinom.logpmf(hits, 8, 2.5, 7.5).sum()
    points = Likelihood.of(hits, sizes).of_points(np.array([0.1, 0.4]), np.array([0.5, 0.05]))
    assert points[0] - constant == pytest.approx(betabinom.logpmf(hits, 8, 0.2, 1.8).sum())
    assert points[1] - constant == pytest.approx(betabinom.logpmf(hits, 8, 8, 12).sum())


@pytest.mark.property
@given(p=st.floats(0.001, 0.999), G=st.integers(2, 60))
def test_mean_absolute_advantage_is_grpos_and_never_falls_with_the_group(p: float, G: int) -> None:
    value = mean_absolute_advantage(binom.pmf(np.arange(G + 1), G, p))
    expected = 0.0
    for K in range(1, G):
        rewards = np.array([1.0] * K + [0.0] * (G - K))
        expected += binom.pmf(K, G, p) * np.abs((rewards - rewards.mean()) / rewards.std()).mean()
    assert value == pytest.approx(expected)
    assert mean_absolute_advantage(binom.pmf(np.arange(G + 2), G + 1, p)) >= value - 1e-12
