"""Verdicts on made-up models of which it is known what happened to them; intervals and power hold what they promise."""

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, xlogy
from score_files import ITEMS, ScoreWorld, beam_ranks

from recast_analysis.learned.candidate_scores import CandidateScores, calibrated
from recast_analysis.learned.learned_report import report
from recast_analysis.learned.learned_verdict import changes_of, verdict_of
from recast_analysis.learned.paired_changes import change, per_user
from recast_analysis.learned.paired_prompts import pair
from recast_analysis.learned.prompt_metrics import prompt_figures
from recast_analysis.learned.scored_prompts import ScoredPrompts

WORLD = ScoreWorld.of(1500, seed=0)


def compared(before: ScoredPrompts, after: ScoredPrompts, third: ScoredPrompts | None = None) -> dict:
    return report(before, after, third, False, 0).summary


def ranked(rank_N: np.ndarray, name: str) -> ScoredPrompts:
    return ScoredPrompts(name, list(map(str, range(len(rank_N)))), rank_N=rank_N, depth=50.0)


# candidates and temperatures, by enumeration


def test_temperatures_entropies_and_best_fits_are_those_of_the_enumeration() -> None:
    rng = np.random.default_rng(0)
    sizes, slots = np.array([3, 1, 5]), np.array([2, 0, 1])
    lists = [rng.normal(size=size) for size in sizes]
    own = CandidateScores(np.concatenate(lists), sizes, slots, sizes.astype(np.uint64))
    for T in (0.3, 1.0, 4.0):
        cooled = [log_softmax(part / T) for part in lists]
        assert own.target_logprob(1 / T) == pytest.approx([part[slot] for part, slot in zip(cooled, slots, strict=True)])
        assert own.entropy(T) == pytest.approx([-xlogy(np.exp(part), np.exp(part)).sum() for part in cooled])
    assert own.mass == pytest.approx(np.mean([np.exp(logsumexp(part)) for part in lists]))
    swapped = own.take(np.array([2, 0]))
    assert swapped.target_logprob() == pytest.approx(own.target_logprob()[[2, 0]])
    assert own.entropy(own.temperature_of(0.4)).mean() == pytest.approx(0.4)


def test_the_fitted_temperature_is_that_which_the_targets_were_drawn_at() -> None:
    world = ScoreWorld.of(20_000, seed=1)
    own = world.scored(log_softmax(world.true_NA / 0.4, axis=1)).candidates
    assert own is not None
    assert own.whole
    best = own.best_inverse()
    assert best == pytest.approx(0.4, rel=0.03)
    top = own.target_logprob(best).mean()
    assert all(own.target_logprob(best * factor).mean() < top for factor in (0.97, 1.03))
    logprob_N, (T,) = calibrated([own], np.arange(20_000) % 2)
    assert pytest.approx(1 / best) == T
    assert logprob_N.mean() == pytest.approx(top, abs=1e-3)


def test_the_best_of_scores_that_say_nothing_or_all_is_an_end() -> None:
    flat = CandidateScores(np.zeros(4), np.array([2, 2]), np.array([0, 1]), np.array([2, 2], dtype=np.uint64))
    assert flat.best_inverse() == 1.0
    sure = CandidateScores(np.array([1.0, 0.0, 0.0, 1.0]), np.array([2, 2]), np.array([0, 1]), np.array([2, 2], np.uint64))
    assert sure.best_inverse() == pytest.approx(1e3)


# verdicts


def test_a_cooled_policy_has_learned_nothing() -> None:
    base = WORLD.policy(0.6, seed=1)
    found = compared(WORLD.scored(base), WORLD.scored(log_softmax(base / 0.5, axis=1)))
    figures = {name: row["difference"]["value"] for name, row in found["figures"].items()}
    assert found["verdict"] == "sharpened"
    assert figures["learned"] == pytest.approx(0, abs=1e-8)
    assert figures["sharpened"] == pytest.approx(figures["pass_at_1_sampled"])
    assert figures["sharpened"] > 0.02
    assert figures["calibrated_log_likelihood"] == pytest.approx(0, abs=1e-7)
    assert figures["pass_at_1_sampled_at_start_entropy"] == pytest.approx(0, abs=1e-8)
    assert figures["hr@10"] == figures["ndcg@10"] == 0
    assert found["temperatures"]["AFTER"][0] == pytest.approx(2 * found["temperatures"]["BEFORE"][0], rel=1e-6)


def test_a_policy_that_knows_more_has_learned_and_a_cooler_one_of_them_both() -> None:
    before = WORLD.scored(WORLD.policy(0.5, seed=1))
    plain, cool = (compared(before, WORLD.scored(WORLD.policy(0.9, seed=2, temperature=T))) for T in (1.35, 0.7))
    for found in (plain, cool):
        figures = {name: row["difference"] for name, row in found["figures"].items()}
        assert figures["learned"]["low"] > 0
        assert figures["calibrated_log_likelihood"]["low"] > 0
        total = figures["learned"]["value"] + figures["sharpened"]["value"]
        assert total == pytest.approx(figures["pass_at_1_sampled"]["value"])
    assert plain["verdict"] == "learned"
    assert cool["verdict"] == "both"
    worse = compared(WORLD.scored(WORLD.policy(0.9, seed=2, temperature=0.7)), before)
    assert worse["verdict"] == "worse"


def test_a_list_that_gains_its_head_and_loses_its_breadth_is_not_called_learning() -> None:
    """The shape of MiniOneRec#35: HR@1 .0671 to .0743, HR@50 .2160 to .1756."""
    before, after = (beam_ranks(4500, *rates, seed) for seed, rates in enumerate([(0.0671, 0.2160), (0.0743, 0.1756)]))
    found = compared(ranked(before, "b"), ranked(after, "a"))
    assert found["verdict"] == "lost breadth"
    assert "sharpening, not learning" in found["words"][0]
    assert found["figures"]["hr@1"]["before"] == pytest.approx(0.0671, abs=2e-4)
    assert found["figures"]["hr@50"]["after"] == pytest.approx(0.1756, abs=2e-4)
    assert any("no temperature can be fitted" in note for note in found["notes"])
    back = compared(ranked(after, "a"), ranked(before, "b"))
    assert back["verdict"] in ("learned", "mixed")


def test_continued_supervision_stands_beside_it() -> None:
    before, after, third = (WORLD.scored(WORLD.policy(knows, seed), name) for seed, (name, knows) in enumerate(
        [("before", 0.5), ("after", 0.6), ("supervised", 0.9)], start=1))  # fmt: skip
    found = compared(before, after, third)
    assert found["supervised_minus_before"]["ndcg@10"]["difference"]["low"] > 0
    assert found["after_minus_supervised"]["ndcg@10"]["difference"]["high"] < 0
    assert any("AFTER stands below it" in words for words in found["words"])


def test_few_changed_prompts_are_no_verdict() -> None:
    before = np.full(400, np.inf)
    after = before.copy()
    after[:8] = 1.0
    found = compared(ranked(before, "b"), ranked(after, "a"))
    assert found["verdict"] == "nothing found"
    assert found["judged"]["hr@1"] is None
    assert any("fewer than 10" in words for words in found["words"])


# intervals and power


def test_users_not_prompts_are_counted_and_the_mean_is_that_over_prompts() -> None:
    rng = np.random.default_rng(0)
    unit_N = np.repeat(np.arange(300), rng.integers(1, 9, 300))
    value_N = rng.normal(size=300)[unit_N]
    value_U, changed = per_user(value_N, unit_N)
    assert value_U.mean() == pytest.approx(value_N.mean())
    assert changed == 300
    draws = []  # a bootstrap over users
    rows = [np.flatnonzero(unit_N == unit) for unit in range(300)]
    for _ in range(1000):
        draws.append(value_N[np.concatenate([rows[unit] for unit in rng.integers(0, 300, 300)])].mean())
    assert value_U.std(ddof=1) / 300**0.5 == pytest.approx(np.std(draws), rel=0.1)


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    world = ScoreWorld.of(30_000, seed=99, most=3)
    return {name: row[0] for name, row in _intervals(world, seed=500).items()}


def _intervals(world: ScoreWorld, seed: int) -> dict[str, tuple[float, float | None, float | None]]:
    sides = (world.scored(world.policy(0.6, seed)), world.scored(world.policy(0.7, seed + 1, temperature=0.8)))
    paired = pair(*sides, None, False)
    own = changes_of(paired, prompt_figures(paired, 0)).own
    return {name: (one.difference.value, one.difference.low, one.difference.high) for name, one in own.items()}


@pytest.mark.property
def test_intervals_cover(truth: dict[str, float]) -> None:
    """Of 200 samples of 150 users with one to three prompts, at least 91 % hold the true change: of all prompts there are."""
    runs = [_intervals(ScoreWorld.of(150, seed=seed, most=3), 1000 + 2 * seed) for seed in range(200)]
    for name in ("hr@1", "hr@10", "ndcg@10", "calibrated_log_likelihood", "sharpened", "learned", "entropy"):
        inside = np.mean([run[name][1] <= truth[name] <= run[name][2] for run in runs])
        assert 0.91 <= inside <= 0.985, (name, inside)


@pytest.mark.property
def test_two_models_that_are_as_good_are_rarely_told_apart() -> None:
    labels = []
    for seed in range(200):
        world = ScoreWorld.of(200, seed)
        paired = pair(*(world.scored(world.policy(0.6, 1000 + 2 * seed + side)) for side in (0, 1)), None, False)
        labels.append(verdict_of(changes_of(paired, prompt_figures(paired, 0))).label)
    assert np.mean([label != "nothing found" for label in labels]) <= 0.07


@pytest.mark.property
def test_the_smallest_effect_is_found_with_the_power_that_is_said() -> None:
    rng, level, found = np.random.default_rng(0), 0.05 / 4, []
    unit_N, nothing_N = np.arange(400), np.zeros(400)
    pilot = change("x", nothing_N, rng.normal(size=400), unit_N, level)
    assert pilot is not None
    assert pilot.smallest_effect is not None
    for _ in range(1000):
        one = change("x", nothing_N, rng.normal(pilot.smallest_effect, 1.0, 400), unit_N, level)
        assert one is not None
        assert one.difference.p is not None
        found.append(one.difference.p < level)
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


def test_the_world_of_these_tests_is_what_it_says() -> None:
    assert WORLD.true_NA.shape == (1500, ITEMS)
    own_N = WORLD.scored(WORLD.policy(0.9, 0)).candidates
    assert own_N is not None
    assert np.exp(own_N.target_logprob()).mean() > 2 / ITEMS
