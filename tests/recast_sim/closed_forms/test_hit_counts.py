"""Beta-binomial fits to hit counts: what they recover, how often their intervals cover, what they refuse."""

import numpy as np
import pytest

from recast_sim.closed_forms import iid_groups as theory
from recast_sim.closed_forms.hit_counts import HitCountFit, fit_hit_counts

PAPER = (1.235, 227.5)


def draw(rng: np.random.Generator, groups: int, a: float, b: float, sizes: int | np.ndarray) -> np.ndarray:
    return rng.binomial(sizes, rng.beta(a, b, groups))


@pytest.mark.property
def test_the_fit_recovers_the_papers_beta() -> None:
    fit = fit_hit_counts(draw(np.random.default_rng(0), 400_000, *PAPER, 32), 32)
    for truth, estimate, (low, high) in zip(PAPER, (fit.a, fit.b), (fit.a_interval, fit.b_interval), strict=True):
        assert low < truth < high
        assert low < estimate < high
        assert high / low < 1.15
    assert fit.mean == pytest.approx(PAPER[0] / sum(PAPER), rel=0.02)
    assert fit.groups == 400_000
    assert fit.p_value is not None
    assert fit.p_value > 1e-3
    np.testing.assert_allclose(fit.regime(128), theory.beta_regime(*PAPER, 128), atol=0.005)


@pytest.mark.property
def test_the_intervals_cover_about_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(1), np.zeros(3)
    sizes = np.resize([8, 16, 32], 150)
    for _ in range(100):
        fit = fit_hit_counts(draw(rng, 150, 2.0, 6.0, sizes), sizes)
        intervals = (fit.a_interval, fit.b_interval, fit.mean_interval)
        covered += [low < truth < high for truth, (low, high) in zip((2.0, 6.0, 0.25), intervals, strict=True)]
    assert np.all(covered >= 87)  # 95 expected, standard error 2.2
    assert covered.sum() < 300


@pytest.mark.property
def test_the_likelihood_is_scipys_and_at_its_top() -> None:
    from scipy.stats import betabinom

    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 20, 300)
    hits = draw(rng, 300, 0.7, 3.0, sizes)
    fit = fit_hit_counts(hits, sizes)
    assert fit.log_likelihood == pytest.approx(betabinom.logpmf(hits, sizes, fit.a, fit.b).sum())
    for a, b in ((fit.a * 1.02, fit.b), (fit.a, fit.b * 0.98), (fit.a * 1.05, fit.b * 1.05)):
        assert betabinom.logpmf(hits, sizes, a, b).sum() < fit.log_likelihood
    low, high = fit.a_interval
    profiled = [max(betabinom.logpmf(hits, sizes, a, b).sum() for b in a * np.linspace(1, 12, 400)) for a in (low, high)]
    np.testing.assert_allclose(fit.log_likelihood - np.array(profiled), 1.9207, atol=0.01)


@pytest.mark.property
def test_goodness_of_fit_accepts_a_beta_and_rejects_two_points() -> None:
    p_values = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        p_values.append(fit_hit_counts(draw(rng, 3000, 2.0, 6.0, 16), 16).p_value)
        mixture = rng.binomial(16, rng.choice([0.05, 0.6], 3000))
        rejected = fit_hit_counts(mixture, 16).p_value
        assert rejected is not None
        assert rejected < 1e-6
    assert sum(p > 0.05 for p in p_values) >= 6
    assert min(p_values) > 1e-4


@pytest.mark.property
def test_the_bootstraps_p_value_agrees_with_chi_square_and_tests_where_it_cannot() -> None:
    rng = np.random.default_rng(3)
    hits = draw(rng, 1000, 2.0, 6.0, 8)
    chi, boot = fit_hit_counts(hits, 8), fit_hit_counts(hits, 8, bootstrap=200, rng=rng)
    assert chi.p_value is not None
    assert boot.p_value == pytest.approx(chi.p_value, abs=0.15)
    few = draw(rng, 1000, *PAPER, 32)
    assert fit_hit_counts(few, 32).dof == 0
    assert fit_hit_counts(few, 32).p_value is None
    tested = fit_hit_counts(few, 32, bootstrap=50, rng=rng).p_value
    assert tested is not None
    assert tested > 0.02


@pytest.mark.property
@pytest.mark.parametrize(
    ("a", "b", "size", "groups"), [(0.02, 0.03, 8, 2000), (300.0, 700.0, 900, 3000), (500.0, 1e5, 4000, 20_000)]
)
def test_the_fit_finds_extreme_shapes(a: float, b: float, size: int, groups: int) -> None:
    """Nearly all-or-nothing prompts, and prompts that hardly differ: the likelihood is flat far away from its top."""
    fit = fit_hit_counts(draw(np.random.default_rng(4), groups, a, b, size), size)
    assert fit.a_interval[0] < a < fit.a_interval[1]
    assert fit.b_interval[0] < b < fit.b_interval[1]
    assert fit.a_interval[1] / fit.a_interval[0] < 8


def test_counts_that_vary_no_more_than_binomial_ones_give_the_binomial_limit() -> None:
    hits = np.repeat([0, 1], [850, 150])  # one target, distinct beams: K is 0 or 1
    fit = fit_hit_counts(hits, 32)
    assert isinstance(fit, HitCountFit)
    assert fit.binomial_limit
    assert fit.a == fit.b == fit.a_interval[1] == fit.b_interval[1] == np.inf
    assert fit.mean == pytest.approx(0.15 / 32)
    assert 0 < fit.a_interval[0] < np.inf
    np.testing.assert_allclose(fit.regime(64), theory.regime_given_hit_rates(fit.mean, 64))


@pytest.mark.parametrize(
    ("hits", "size", "words"),
    [
        ([], 8, "hits: no groups"),
        ([0, 0, 0], 8, "hits: no group has a hit"),
        ([8, 8], 8, "hits: every rollout is a hit"),
        ([3, 3, 3], 8, "hits: all 3 groups show the same hit rate 0.375"),
        ([2, 4], [8, 16], "hits: all 2 groups show the same hit rate 0.25"),
        ([0, 8, 0], 8, "hits: no group has both a hit and a miss"),
        ([1, 0], 1, "group_size: all groups have size 1"),
        ([1, 9], 8, "hits: group 1 has 9 hits among 8"),
        ([-1, 2], 8, "hits: -1 must be"),
        ([0.5, 2], 8, "hits: must hold whole numbers"),
        ([1, 2], 0, "group_size: 0 must be"),
        ([1, 2, 3], [8, 8], "group_size: 2 sizes do not fit 3"),
        ([[1, 2]], 8, r"hits: shape \(1, 2\)"),
    ],
)
def test_degenerate_counts_are_named(hits: list, size: object, words: str) -> None:
    with pytest.raises(ValueError, match="^" + words):
        fit_hit_counts(hits, size)  # type: ignore[arg-type]


def test_a_bootstrap_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="rng: missing"):
        fit_hit_counts([0, 1, 2], 8, bootstrap=10)
