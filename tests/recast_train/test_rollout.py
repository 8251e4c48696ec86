"""Rollouts against enumeration: log-probabilities of a plain forward, a total of 1, and frequencies within their errors."""

import numpy as np
import pytest
import torch
from sid_world import enumerated, tiny_catalog, tiny_model, tiny_prompts

from recast_sim.catalog import Catalog
from recast_train.model import PromptTokens, SidModel
from recast_train.rollout import sample_rollouts
from recast_train.rollout.iid import inverse_cdf

SIZES = [(4, 3, 5), (6, 4), (20,), (2, 3, 2, 3)]


def world(sizes: tuple[int, ...], prompts: int = 3) -> tuple[Catalog, SidModel, PromptTokens]:
    catalog = tiny_catalog(min(20, int(np.prod(sizes))), sizes)
    return catalog, tiny_model(catalog), tiny_prompts(catalog, prompts)


@pytest.mark.parametrize("sizes", SIZES)
def test_logprobs_are_those_of_a_plain_forward(sizes: tuple[int, ...]) -> None:
    catalog, model, prompts = world(sizes)
    exact_PYL = enumerated(model, prompts)
    found = sample_rollouts(model, prompts, 16, torch.Generator().manual_seed(0))
    expected = np.take_along_axis(exact_PYL, found.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(found.logprobs_PGL.numpy(), expected, atol=1e-4)
    assert np.array_equal(found.sids_PGL.numpy(), catalog.leaf_codes[found.leaf_PG.numpy()])
    assert np.allclose(found.logprob_PG.numpy(), expected.sum(2), atol=1e-4)
    assert len(np.unique(found.leaf_PG.numpy())) > 2


@pytest.mark.parametrize("sizes", SIZES)
def test_leaves_share_a_probability_of_one(sizes: tuple[int, ...]) -> None:
    _, model, prompts = world(sizes)
    assert np.allclose(np.exp(enumerated(model, prompts).sum(2)).sum(1), 1.0, atol=1e-5)


def test_frequencies_match_probabilities() -> None:
    _, model, prompts = world((4, 3, 5))
    probability = np.exp(enumerated(model, prompts).sum(2))
    draws = 20_000
    many = prompts.take(torch.arange(3).repeat_interleave(40))
    leaf = sample_rollouts(model, many, draws // 40, torch.Generator().manual_seed(1)).leaf_PG.reshape(3, draws)
    counts = np.stack([np.bincount(row, minlength=model.nodes[-1]) for row in leaf.numpy()])
    error = np.sqrt(probability * (1 - probability) / draws)
    off = (counts / draws - probability) / np.maximum(error, 1e-9)
    likely = probability * draws > 10
    assert likely.sum() > 10
    assert np.abs(off[likely]).max() < 4.5
    assert np.square(off[likely]).mean() < 2
    assert counts[~likely].sum() < 3 * (probability[~likely].sum() * draws + 10)


def test_rollouts_are_independent() -> None:
    _, model, prompts = world((4, 3, 5), 1)
    same = prompts.take(torch.zeros(1500, dtype=torch.int64))
    leaf = sample_rollouts(model, same, 2, torch.Generator().manual_seed(5)).leaf_PG
    probability = np.exp(enumerated(model, prompts).sum(2))[0]
    agree = float((leaf[:, 0] == leaf[:, 1]).double().mean())
    expected = float(np.square(probability).sum())
    assert abs(agree - expected) < 4 * np.sqrt(expected * (1 - expected) / 1500)


def test_the_seed_decides_and_the_group_size_does_not_change_the_model() -> None:
    _, model, prompts = world((4, 3, 5))
    one, same = (sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    other = sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(4))
    assert torch.equal(one.leaf_PG, same.leaf_PG)
    assert not torch.equal(one.leaf_PG, other.leaf_PG)


def test_no_draw_lands_on_an_illegal_or_impossible_child() -> None:
    logprobs = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0]).log().expand(1, 4, 5)
    uniform = torch.tensor([[0.0, 0.4999, 0.5, 1 - 2**-24]])
    assert inverse_cdf(logprobs, uniform).tolist() == [[1, 1, 2, 2]]
