"""Beams against brute force, and stochastic beams against sampling without replacement by enumeration."""

from itertools import permutations

import numpy as np
import pytest
import torch
from rollout_cases import SIZES, small_world, tempered, world
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_train.rollout import RolloutConfig, Rollouts, importance_weights, sample_rollouts
from recast_train.rollout.beam import conditional_gumbels

METHODS = ["beam", "stochastic_beam"]
DRAWS = 6000


def brute_force(catalog: Catalog, logprob_YL: np.ndarray, width: int) -> list[int]:
    """Leaves of a search that keeps the best `width` prefixes of each length."""
    total_YL, kept = logprob_YL.cumsum(1), {(): 0.0}
    for level in range(catalog.levels):
        reached = {
            tuple(catalog.leaf_codes[leaf, : level + 1]): total_YL[leaf, level]
            for leaf in range(catalog.leaves)
            if tuple(catalog.leaf_codes[leaf, :level]) in kept
        }
        kept = dict(sorted(reached.items(), key=lambda item: -item[1])[:width])
    sids = [tuple(codes) for codes in catalog.leaf_codes]
    return [sids.index(sid) for sid in kept]


def exhausted(found: Rollouts, leaves: int) -> None:
    """Rows beyond the leaves are copies of row 0."""
    assert torch.equal(found.valid_PG, (torch.arange(found.valid_PG.shape[1]) < leaves).expand_as(found.valid_PG))
    for rows in (found.leaf_PG, found.sids_PGL, found.logprobs_PGL):
        assert torch.equal(rows[:, leaves:], rows[:, :1].expand_as(rows[:, leaves:]))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_beam_that_covers_the_levels_is_the_exact_top(sizes: tuple[int, ...], temperature: float) -> None:
    catalog, model, prompts = world(sizes)
    width = max(12, max(len(code) for code in catalog.node_code[:-1]))
    exact_PYL = tempered(model, prompts, temperature)
    found = sample_rollouts(model, prompts, width, torch.Generator(), RolloutConfig("beam", temperature))
    ranking = (-exact_PYL.sum(2)).argsort(1)[:, :width]
    assert np.array_equal(found.leaf_PG.numpy(), ranking)
    assert np.allclose(found.logprobs_PGL.numpy(), np.take_along_axis(exact_PYL, ranking[..., None], 1), atol=1e-4)
    assert np.array_equal(found.sids_PGL.numpy(), catalog.leaf_codes[ranking])
    assert found.valid_PG.all()


@pytest.mark.parametrize("sizes", [(4, 3, 5), (6, 4), (2, 3, 2, 3)])
def test_a_narrow_beam_is_the_search_and_not_the_top(sizes: tuple[int, ...]) -> None:
    catalog, model, prompts = world(sizes, 12)
    exact_PYL, differs = tempered(model, prompts, 2.0), 0
    for width in (1, 2, 3):
        found = sample_rollouts(model, prompts, width, torch.Generator(), RolloutConfig("beam", 2.0)).leaf_PG.tolist()
        assert found == [brute_force(catalog, exact_YL, width) for exact_YL in exact_PYL]
        differs += sum(a != b for a, b in zip(found, (-exact_PYL.sum(2)).argsort(1)[:, :width].tolist(), strict=True))
    assert differs > 0


def test_a_beam_draws_nothing() -> None:
    _, model, prompts = world((4, 3, 5))
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    sample_rollouts(model, prompts, 4, generator, RolloutConfig("beam"))
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_group_wider_than_the_catalog_is_padded(sizes: tuple[int, ...], method: str) -> None:
    catalog, model, prompts = world(sizes)
    found = sample_rollouts(model, prompts, catalog.leaves + 3, torch.Generator().manual_seed(0), RolloutConfig(method))
    exhausted(found, catalog.leaves)
    assert all(sorted(row[: catalog.leaves]) == list(range(catalog.leaves)) for row in found.leaf_PG.tolist())
    if method == "stochastic_beam":
        assert found.kappa_P is not None
        weights = importance_weights(found.logprob_PG, found.kappa_P, found.valid_PG)
        assert (found.kappa_P == -torch.inf).all()
        assert torch.allclose(weights[:, : catalog.leaves], found.logprob_PG[:, : catalog.leaves].double().exp())
        assert (weights[:, catalog.leaves :] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_stochastic_beams_are_distinct_sorted_and_know_their_probabilities(sizes: tuple[int, ...], temperature: float) -> None:
    _, model, prompts = world(sizes, 6)
    config = RolloutConfig("stochastic_beam", temperature)
    found = sample_rollouts(model, prompts, 9, torch.Generator().manual_seed(0), config)
    expected = np.take_along_axis(tempered(model, prompts, temperature), found.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(found.logprobs_PGL.numpy(), expected, atol=1e-4)
    assert all(len(set(row)) == 9 for row in found.leaf_PG.tolist())
    assert found.phi_PG is not None
    assert found.kappa_P is not None
    assert (found.phi_PG.diff(dim=1) < 0).all()
    assert (found.kappa_P < found.phi_PG[:, -1]).all()
    assert found.valid_PG.all()


def many(width: int, seed: int = 0) -> tuple[Rollouts, np.ndarray]:
    """Groups of one prompt, and the probabilities of its leaves."""
    model, prompts, probability_Y = small_world()
    same = prompts.take(torch.zeros(DRAWS, dtype=torch.int64))
    config = RolloutConfig("stochastic_beam")
    return sample_rollouts(model, same, width, torch.Generator().manual_seed(seed), config), probability_Y


def off(hits: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Distance of shares from probabilities in standard errors, where 20 or more are expected."""
    error = np.sqrt(probability * (1 - probability) / DRAWS)
    likely = (probability * DRAWS > 20) & ((1 - probability) * DRAWS > 20)
    assert likely.sum() > 5
    return ((hits / DRAWS - probability) / error.clip(1e-12))[likely]


def test_stochastic_beams_are_draws_without_replacement() -> None:
    found, probability_Y = many(3)
    assert len(probability_Y) == 8
    inclusion_Y, pairs_YY = np.zeros(8), np.zeros((8, 8))
    for order in permutations(range(8), 3):
        p = probability_Y[list(order)].astype(float)
        chance = p[0] * p[1] / (1 - p[0]) * p[2] / (1 - p[0] - p[1])
        inclusion_Y[list(order)] += chance
        pairs_YY[order[0], order[1]] += chance
    assert inclusion_Y.sum() == pytest.approx(3.0, rel=1e-4)
    leaf = found.leaf_PG.numpy()
    pairs = np.bincount(leaf[:, 0] * 8 + leaf[:, 1], minlength=64).reshape(8, 8)
    assert np.abs(off(np.bincount(leaf.ravel(), minlength=8), inclusion_Y)).max() < 4.5
    assert np.abs(off(pairs, pairs_YY)).max() < 4.5
    assert np.square(off(pairs, pairs_YY)).mean() < 2


@pytest.mark.parametrize("width", [1, 2, 4])
def test_importance_weights_are_unbiased(width: int) -> None:
    found, probability_Y = many(width, seed=width)
    assert found.kappa_P is not None
    weight_PG = importance_weights(found.logprob_PG, found.kappa_P, found.valid_PG).numpy()
    values = [np.ones(8), np.linspace(-1.0, 2.0, 8) ** 2, *np.eye(8)[probability_Y.argsort()[-3:]]]
    for value_Y in values:
        estimate_P = (weight_PG * value_Y[found.leaf_PG.numpy()]).sum(1)
        error = estimate_P.std() / np.sqrt(DRAWS)
        assert abs(estimate_P.mean() - probability_Y @ value_Y) < 4.5 * error + 1e-6
        assert error < 0.1


def gumbels(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(-uniform.log()).log()


def test_the_best_child_has_its_parents_score() -> None:
    logprob = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0)).mul(30).log_softmax(2)
    parent = torch.linspace(-3.0, 40.0, 20, dtype=torch.float64).view(5, 4)
    found = conditional_gumbels(logprob, parent, gumbels((5, 4, 6)))
    assert torch.equal(found.amax(2), parent)
    assert ((found == parent[..., None]).sum(2) == 1).all()


def test_certain_impossible_and_missing_children() -> None:
    """Probabilities 1 and 0 (a log-probability of -800 and of -inf), and a node without any child."""
    logprob = torch.tensor([[0.0, -800.0, -torch.inf], [-torch.inf] * 3])
    found = conditional_gumbels(logprob[None], torch.tensor([[-2.0, -torch.inf]], dtype=torch.float64), gumbels((1, 2, 3)))[0]
    assert found[0, 0] == -2.0
    assert -900 < found[0, 1] < -700
    assert (found[[0, 1, 1, 1], [2, 0, 1, 2]] == -torch.inf).all()
