"""Learning and sharpening of a real model against enumeration of a tiny catalog."""

import copy
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp, xlogy
from sid_world import enumerated, questions, tiny_catalog, tiny_model

from recast_sim.catalog import Catalog
from recast_train.data import Prompts
from recast_train.evaluate import EvaluationConfig
from recast_train.model import SidModel, tokenise_histories
from recast_train.sharpening import Seen, learning_scores

CATALOG = tiny_catalog(60, (5, 4, 6))
MODEL, OTHER = tiny_model(CATALOG, scale=6.0), tiny_model(CATALOG, seed=1, scale=6.0)
ASK = questions(CATALOG, 50)


def drawn_from_the_model(prompts: Prompts) -> Prompts:
    """Targets that the model has drawn itself, so that temperatures near 1 fit them."""
    logprob_PY = enumerated(MODEL, tokenise_histories(prompts.history_NH, CATALOG)).sum(2)
    leaf_P = (logprob_PY + np.random.default_rng(0).gumbel(size=logprob_PY.shape)).argmax(1)
    target_P = np.argsort(CATALOG.leaf_of_item_I)[leaf_P]
    return Prompts(prompts.history_NH, target_P[:, None], prompts.user_N, prompts.seen_offset, prompts.seen_item)


VALIDATION = drawn_from_the_model(questions(CATALOG, 40, seed=5))
CONFIG = EvaluationConfig(batch=16)


def seen(model: SidModel, prompts: Prompts = ASK) -> Seen:
    return Seen.of(model, CATALOG, prompts, CONFIG, seed=3)


def cooled_leaves(steps_PYL: np.ndarray, catalog: Catalog, inverse_L: tuple[float, ...]) -> np.ndarray:
    """Log-probability of every leaf, (P, Y), with level l's logits times b_l: each parent's children normalised by hand."""
    total = np.zeros(steps_PYL.shape[:2])
    for level, b in enumerate(inverse_L):
        child, parent = (
            catalog.leaf_nodes[:, level],
            catalog.leaf_nodes[:, level - 1] if level else np.zeros(catalog.leaves, int),
        )
        for p in np.unique(parent):
            leaves = np.flatnonzero(parent == p)
            _, first = np.unique(child[leaves], return_index=True)
            scores = b * steps_PYL[:, leaves]
            total[:, leaves] += scores[..., level] - logsumexp(scores[:, first, level], axis=1, keepdims=True)
    return total


def at_temperature(model: SidModel, temperature: float) -> SidModel:
    """A copy whose logits are divided by a temperature."""
    cooler: Any = copy.deepcopy(model)
    cooler.child_logprobs = lambda hidden, level, node, T=1.0: SidModel.child_logprobs(
        cooler, hidden, level, node, T * temperature
    )
    return cooler


@pytest.fixture(scope="module")
def steps() -> np.ndarray:
    return enumerated(MODEL, tokenise_histories(ASK.history_NH, CATALOG))


@pytest.mark.parametrize("inverse", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.5, 3.0, 1.2)])
def test_targets_at_any_temperatures_are_those_of_the_enumeration(steps: np.ndarray, inverse: tuple[float, ...]) -> None:
    own = cooled_leaves(steps, CATALOG, inverse)[np.arange(50), CATALOG.leaf_of_item_I[ASK.target_N]]
    assert seen(MODEL).log_likelihood(inverse) == pytest.approx(own, abs=2e-3)
    if len(set(inverse)) == 1:
        assert seen(MODEL).pass_at_1(1 / inverse[0]) == pytest.approx(np.exp(own), rel=5e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_mean_entropies_are_those_of_the_enumeration(steps: np.ndarray, temperature: float) -> None:
    share = np.exp(cooled_leaves(steps, CATALOG, (1 / temperature,) * 3))
    assert seen(MODEL).entropy(temperature) == pytest.approx(float(-xlogy(share, share).sum(1).mean()), rel=0.03)


def test_fitted_numbers_are_the_best_on_the_prompts_that_they_were_fitted_to() -> None:
    own = seen(MODEL, VALIDATION)
    best = own.best_levels()
    top = own.log_likelihood(best).mean()
    for level in range(3):
        for factor in (0.97, 1.03):
            moved = tuple(b * factor if at == level else b for at, b in enumerate(best))
            assert own.log_likelihood(moved).mean() < top
    one = 1 / own.best_temperature()
    assert all(own.log_likelihood([one * f] * 3).mean() < own.log_likelihood([one] * 3).mean() for f in (0.97, 1.03))


def test_a_cooler_start_has_learned_nothing_and_no_temperature_buys_what_the_figures_say_it_does_not() -> None:
    start, cold = seen(MODEL), at_temperature(MODEL, 0.5)
    plain = learning_scores(start, start, seen(MODEL, VALIDATION))
    found = learning_scores(seen(cold), start, seen(cold, VALIDATION))
    assert np.abs(plain["learned"]).mean() < 1e-4
    assert np.abs(plain["sharpened"]).mean() < 1e-4
    gain = seen(cold).pass_at_1() - start.pass_at_1()
    assert np.allclose(found["sharpened"] + found["learned"], gain)
    assert np.abs(found["learned"]).mean() < 0.02 * np.abs(gain).mean()
    for name in ("calibrated_log_likelihood", "pass_at_1_greedy_levels", "hr@10_levels", "pass_at_1_sampled_fitted"):
        assert np.mean(found[name]) == pytest.approx(np.mean(plain[name]), rel=1e-3)
    assert np.mean(found["pass_at_1_sampled_at_start_entropy"]) == pytest.approx(float(start.pass_at_1().mean()), rel=0.02)
    assert found["temperature"] == pytest.approx(2 * plain["temperature"], rel=1e-4)


def test_another_model_is_more_than_a_temperature() -> None:
    start = seen(MODEL)
    found = learning_scores(seen(OTHER), start, seen(OTHER, VALIDATION))
    gain = seen(OTHER).pass_at_1() - start.pass_at_1()
    assert np.allclose(found["sharpened"] + found["learned"], gain)
    assert np.abs(found["learned"]).mean() > 0.3 * np.abs(gain).mean()


def test_a_prompt_with_several_targets_counts_each() -> None:
    targets = np.stack([ASK.target_N, (ASK.target_N + 1) % CATALOG.items, np.full(50, -1)], 1)
    several = Prompts(ASK.history_NH, targets, ASK.user_N, ASK.seen_offset, ASK.seen_item)
    both = [Prompts(ASK.history_NH, targets[:, [t]], ASK.user_N, ASK.seen_offset, ASK.seen_item) for t in (0, 1)]
    one, two = (seen(MODEL, prompts) for prompts in both)
    assert seen(MODEL, several).pass_at_1() == pytest.approx(one.pass_at_1() + two.pass_at_1(), rel=1e-4)
    mean = (one.log_likelihood([1.0] * 3) + two.log_likelihood([1.0] * 3)) / 2
    assert seen(MODEL, several).log_likelihood([1.0] * 3) == pytest.approx(mean, abs=1e-4)
