"""Intervals cover as often as they say, at the numbers of worlds that are run, and false discoveries stay rare."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from recast_analysis.measures.budget_curves import gain
from recast_analysis.measures.statistics import false_discovery, mean_band, mean_interval

STUDIES = 4000
Draw = Callable[[np.random.Generator, int], np.ndarray]
WORLDS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(1.0, 0.3, n),
    "uniform": lambda rng, n: rng.uniform(0.5, 1.5, n),
    "a little skewed": lambda rng, n: np.exp(rng.normal(0.0, 0.25, n)) / np.exp(0.25**2 / 2),
}


@pytest.mark.property
@pytest.mark.parametrize("worlds", [5, 10, 20])
@pytest.mark.parametrize("name", WORLDS)
def test_intervals_cover_the_mean_of_one_setting(name: str, worlds: int) -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(WORLDS[name](rng, worlds)) for _ in range(STUDIES)]
    assert np.mean([i.above <= 1.0 <= i.below for i in found]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.property
@pytest.mark.parametrize(("sizes", "spreads"), [((5, 5, 5), (0.1, 0.1, 0.1)), ((6, 20), (0.5, 0.1)), ((10, 10), (0.1, 0.9))])
def test_intervals_cover_the_mean_of_several_settings(sizes: tuple[int, ...], spreads: tuple[float, ...]) -> None:
    rng, means = np.random.default_rng(1), np.arange(len(sizes))
    truth, covered = means.mean(), []
    for _ in range(STUDIES):
        parts = [rng.normal(mean, spread, size) for mean, spread, size in zip(means, spreads, sizes, strict=True)]
        covered.append((i := mean_interval(*parts)).above <= truth <= i.below)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.property
@pytest.mark.parametrize("worlds", [5, 10, 20])
def test_intervals_of_gains_cover_the_ratio_of_means(worlds: int) -> None:
    """Worlds differ in how hard they are, alike for both methods, and each score has noise of its own."""
    rng, covered = np.random.default_rng(2), []
    for _ in range(STUDIES):
        hardness = rng.normal(1.0, 0.2, worlds)
        ours, theirs = (rate * hardness + rng.normal(0, 0.05, worlds) for rate in (1.3, 1.0))
        covered.append((i := gain("recall_at_k", [ours], [theirs])).above <= 0.3 <= i.below)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_one_setting_is_the_t_test() -> None:
    values = np.array([0.3, -0.1, 0.4, 0.2])
    found, known = mean_interval(values), ttest_1samp(values, 0)
    low, high = known.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.p == pytest.approx(known.pvalue)


def test_one_world_has_no_interval_and_worlds_without_scatter_a_point() -> None:
    one = mean_interval(np.array([0.3]))
    assert (one.value, one.low, one.high, one.p) == (0.3, None, None, None)
    assert (one.above, one.below) == (-np.inf, np.inf)
    assert mean_interval(np.array([0.3, 0.4]), np.array([0.5])).low is None
    same = mean_interval(np.array([0.5, 0.5]))
    assert (same.low, same.high, same.p) == (0.5, 0.5, 0.0)
    assert mean_interval(np.zeros(3)).p == 1.0


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one setting"):
        mean_interval()
    with pytest.raises(ValueError, match="one world in each"):
        mean_interval(np.array([1.0]), np.array([]))
    with pytest.raises(ValueError, match="must be finite"):
        mean_interval(np.array([1.0, np.inf]))


def test_bands_are_the_intervals_of_each_column() -> None:
    sample = np.random.default_rng(0).normal(size=(6, 4))
    low, middle, high = mean_band(sample)
    for column, *band in zip(sample.T, low, middle, high, strict=True):
        found = mean_interval(column)
        assert band == pytest.approx([found.low, found.value, found.high])
    assert [part.tolist() for part in mean_band(sample[:1])] == [sample[0].tolist()] * 3


@pytest.mark.property
def test_few_of_the_cells_that_are_told_from_nothing_are_nothing() -> None:
    """Of 40 cells 10 hold an effect: of what is found at 5 %, at most about 5 % is false."""
    rng, shares = np.random.default_rng(3), []
    for _ in range(300):
        effects = np.where(np.arange(40) < 10, 2.0, 0.0)
        adjusted = false_discovery([mean_interval(rng.normal(effect, 1.0, 6)).p for effect in effects])
        found = np.array([q is not None and q < 0.05 for q in adjusted])
        shares.append(found[10:].sum() / max(1, found.sum()))
    assert np.mean(shares) < 0.06
    assert false_discovery([None, 0.04, None, 0.01]) == [None, pytest.approx(0.04), None, pytest.approx(0.02)]
    assert false_discovery([None]) == [None]
