"""Rollouts against enumeration: log-probabilities of a plain forward, a total of 1, and frequencies within their errors."""

import math

import numpy as np
import pytest
import torch
from rollout_cases import SIZES, tempered, world
from sid_world import enumerated

from recast_train.model import TrainError
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.rollout import RolloutConfig, ThoughtConfig, sample_rollouts
from recast_train.rollout.iid import inverse_cdf


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


@pytest.mark.parametrize("temperature", [0.4, 2.5])
@pytest.mark.parametrize("sizes", SIZES)
def test_logprobs_are_at_the_temperature(sizes: tuple[int, ...], temperature: float) -> None:
    _, model, prompts = world(sizes)
    found = sample_rollouts(model, prompts, 16, torch.Generator().manual_seed(0), RolloutConfig(temperature=temperature))
    expected = np.take_along_axis(tempered(model, prompts, temperature), found.leaf_PG.numpy()[..., None], 1)
    plain = np.take_along_axis(enumerated(model, prompts), found.leaf_PG.numpy()[..., None], 1)
    rows = torch.arange(3).repeat_interleave(16)
    with torch.no_grad():
        packed = packed_logprobs(model, prompts, rows, found.leaf_PG.flatten(), temperature).view_as(found.logprobs_PGL)
    assert np.allclose(found.logprobs_PGL.numpy(), expected, atol=1e-4)
    assert torch.allclose(found.logprobs_PGL, packed, atol=1e-5)
    assert not np.allclose(plain, expected, atol=0.1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_match_probabilities(temperature: float) -> None:
    _, model, prompts = world((4, 3, 5))
    probability = np.exp(tempered(model, prompts, temperature).sum(2))
    draws = 20_000
    many = prompts.take(torch.arange(3).repeat_interleave(40))
    config = RolloutConfig(temperature=temperature)
    leaf = sample_rollouts(model, many, draws // 40, torch.Generator().manual_seed(1), config).leaf_PG.reshape(3, draws)
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


@pytest.mark.parametrize("method", ["iid", "stochastic_beam"])
def test_the_generator_decides(method: str) -> None:
    _, model, prompts = world((4, 3, 5))
    config = RolloutConfig(method)
    one, same, other = (sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(n), config) for n in (3, 3, 4))
    assert torch.equal(one.leaf_PG, same.leaf_PG)
    assert torch.equal(one.logprobs_PGL, same.logprobs_PGL)
    assert not torch.equal(one.leaf_PG, other.leaf_PG)


def test_the_default_is_independent_draws_at_temperature_one() -> None:
    _, model, prompts = world((4, 3, 5))
    plain = sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(3))
    named = sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(3), RolloutConfig("iid", 1.0))
    assert torch.equal(plain.leaf_PG, named.leaf_PG)
    assert torch.equal(plain.logprobs_PGL, named.logprobs_PGL)
    assert plain.valid_PG.all()
    assert plain.phi_PG is None
    assert plain.kappa_P is None


@pytest.mark.parametrize("given", [1, 2])
def test_rollouts_behind_hints_have_the_plain_probabilities_of_what_is_drawn(given: int) -> None:
    catalog, model, prompts = world((4, 3, 5))
    hint_P = torch.tensor([0, 7, 19])
    config = RolloutConfig("iid", 1.5, hint_levels=given)
    found = sample_rollouts(model, prompts, 64, torch.Generator().manual_seed(0), config, hint_P=hint_P)
    hints_PK = torch.from_numpy(catalog.leaf_codes)[hint_P, :given]
    assert (found.sids_PGL[..., :given] == hints_PK[:, None]).all()
    assert (found.logprobs_PGL[..., :given] == 0).all()
    expected = np.take_along_axis(tempered(model, prompts, 1.5), found.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(found.logprobs_PGL[..., given:].numpy(), expected[..., given:], atol=1e-4)
    behind = [(torch.from_numpy(catalog.leaf_codes)[:, :given] == hint).all(1).sum() for hint in hints_PK]
    assert [len(set(row)) for row in found.leaf_PG.tolist()] == [int(leaves) for leaves in behind]


def test_hints_need_independent_draws_and_a_level_to_draw() -> None:
    with pytest.raises(TrainError, match="hint_levels: 1 needs method 'iid', not 'beam'"):
        RolloutConfig("beam", hint_levels=1)
    _, model, prompts = world((4, 3, 5))
    config = RolloutConfig(hint_levels=3)
    with pytest.raises(TrainError, match="hint_levels: 3 leaves nothing to draw of 3 levels"):
        sample_rollouts(model, prompts, 8, torch.Generator(), config, hint_P=torch.tensor([0, 7, 19]))


@pytest.mark.parametrize("method", ["iid", "beam", "stochastic_beam"])
def test_probabilities_that_round_to_0_and_1(method: str) -> None:
    """Nearly without temperature every draw with replacement is the greedy leaf, and the others are finite and distinct."""
    _, model, prompts = world((4, 3, 5))
    found = sample_rollouts(model, prompts, 12, torch.Generator().manual_seed(0), RolloutConfig(method, 1e-4))
    likeliest = torch.from_numpy(tempered(model, prompts, 1e-4).sum(2).argmax(1))
    assert torch.equal(found.leaf_PG[:, 0], likeliest)
    assert torch.equal(found.logprob_PG[:, 0].exp(), torch.ones(3))
    assert torch.isfinite(found.logprobs_PGL).all()
    assert found.valid_PG.all()
    distinct = [len(set(row)) for row in found.leaf_PG.tolist()]
    assert distinct == [1 if method == "iid" else 12] * 3
    if method != "iid":
        assert (found.logprob_PG[:, 1:].exp() == 0).all()


@pytest.mark.parametrize("method", ["iid", "beam", "stochastic_beam"])
def test_a_model_that_has_diverged_is_refused(method: str) -> None:
    _, model, prompts = world((4, 3, 5))
    with torch.no_grad():
        model.lm.lm_head.weight.fill_(torch.nan)
    with pytest.raises(TrainError, match="probabilities: not finite"):
        sample_rollouts(model, prompts, 8, torch.Generator().manual_seed(0), RolloutConfig(method))


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (
            RolloutConfig,
            {"method": "greedy"},
            r"RolloutConfig\.method: 'greedy' must be one of 'iid', 'beam' or",
        ),
        (RolloutConfig, {"temperature": 0.0}, r"RolloutConfig\.temperature: 0\.0 must be above 0"),
        (RolloutConfig, {"temperature": math.nan}, r"RolloutConfig\.temperature: nan must"),
        (ThoughtConfig, {"temperature": math.inf}, r"ThoughtConfig\.temperature: inf must"),
        (ThoughtConfig, {"max_tokens": -1}, r"ThoughtConfig\.max_tokens: -1 must be at least 0"),
    ],
)
def test_bad_settings_are_refused(config: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        config(**values)


def test_no_draw_lands_on_an_illegal_or_impossible_child() -> None:
    logprobs = torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0]).log().expand(1, 4, 5)
    uniform = torch.tensor([[0.0, 0.4999, 0.5, 1 - 2**-24]])
    assert inverse_cdf(logprobs, uniform).tolist() == [[1, 1, 2, 2]]
