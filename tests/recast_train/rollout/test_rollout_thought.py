"""Thoughts against plain forwards of transformers, and the SID stage behind them."""

import numpy as np
import pytest
import torch
from rollout_cases import WORDS, wordy_world, world
from sid_world import enumerated
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.rollout import (
    RolloutConfig,
    ThoughtConfig,
    ThoughtMarkers,
    Thoughts,
    sample_rollouts,
    sample_thoughts,
)

END, BEGIN = 14, (15, 1)
MARKERS = ThoughtMarkers(END, BEGIN)
FREE = [0, 1, *range(14, 14 + WORDS)]  # all tokens but those of the SIDs


@torch.no_grad()
def plain_logprobs(model: SidModel, tokens: list[int], temperature: float) -> Tensor:
    """Log-probabilities (T, V) of the token after each token, over the free tokens, by a plain forward."""
    logits_TV = model.lm(input_ids=torch.tensor([tokens])).logits[0] / temperature
    found = torch.full_like(logits_TV, -torch.inf)
    found[:, FREE] = logits_TV[:, FREE].log_softmax(1)
    return found


def think(seed: int = 0, temperature: float = 1.5, prompts: int = 12) -> tuple[SidModel, PromptTokens, PromptTokens, Thoughts]:
    model, tokens = wordy_world(prompts)
    config = ThoughtConfig(5, temperature)
    return model, tokens, *sample_thoughts(model, tokens, config, MARKERS, torch.Generator().manual_seed(seed))


def real(prompts: PromptTokens, row: int) -> list[int]:
    return prompts.tokens_PT[row][prompts.real_PT[row]].tolist()


def test_thoughts_end_at_their_end_token_or_at_the_limit() -> None:
    _, _, _, thoughts = think()
    assert thoughts.tokens_PS.shape == (12, 5)
    ended = 0
    for tokens, sampled, logprobs in zip(thoughts.tokens_PS, thoughts.sampled_PS, thoughts.logprobs_PS, strict=True):
        length = int(sampled.sum())
        assert sampled.tolist() == [True] * length + [False] * (5 - length)
        assert END not in tokens[: length - 1].tolist()
        assert set(tokens.tolist()) <= set(FREE)
        assert (logprobs[length:] == 0).all()
        assert int(tokens[length - 1]) == END or length == 5
        ended += int(tokens[length - 1]) == END
    assert 0 < ended < 12
    assert len(set(thoughts.length_P.tolist())) > 2


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_logprobs_and_prompts_are_those_of_a_plain_forward(temperature: float) -> None:
    model, before, after, thoughts = think(temperature=temperature)
    for row in range(12):
        thought = thoughts.tokens_PS[row][thoughts.sampled_PS[row]].tolist()
        prompt = real(before, row)
        assert real(after, row) == [*prompt, *thought, *BEGIN]
        exact_TV = plain_logprobs(model, [*prompt, *thought], temperature)[len(prompt) - 1 : -1]
        expected = exact_TV.gather(1, torch.tensor(thought)[:, None])[:, 0]
        assert torch.allclose(thoughts.logprobs_PS[row, : len(thought)], expected, atol=1e-4)
    assert (after.real_PT.int().diff(dim=1) >= 0).all()  # padded on the left
    assert after.real_PT[:, 0].any()  # no column is padding alone


@pytest.mark.parametrize("method", ["iid", "beam", "stochastic_beam"])
def test_the_sid_stage_is_that_of_a_prompt_that_holds_the_thought(method: str) -> None:
    model, before, after, thoughts = think()
    found = sample_rollouts(model, after, 6, torch.Generator().manual_seed(1), RolloutConfig(method))
    for row in range(12):
        tokens = torch.tensor([*real(before, row), *thoughts.tokens_PS[row][thoughts.sampled_PS[row]].tolist(), *BEGIN])
        exact_YL = enumerated(model, PromptTokens(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool)))[0]
        assert np.allclose(found.logprobs_PGL[row].numpy(), exact_YL[found.leaf_PG[row].numpy()], atol=1e-4)
        without = enumerated(model, before.take(slice(row, row + 1)))[0]
        assert not np.allclose(exact_YL, without, atol=0.05)


def test_frequencies_match_probabilities() -> None:
    """Every thought of two tokens, and the one that ends at once."""
    model, prompts = wordy_world()
    draws, row, markers = 8000, 1, ThoughtMarkers(END)
    same = prompts.take(torch.full((draws,), row))
    _, thoughts = sample_thoughts(model, same, ThoughtConfig(2, 2.0), markers, torch.Generator().manual_seed(0))
    prompt, chance = real(prompts, row), torch.zeros(20, 20)
    first_V = plain_logprobs(model, prompt, 2.0)[-1].exp()
    for token in FREE:
        second_V = plain_logprobs(model, [*prompt, token], 2.0)[-1].exp()
        chance[token] = first_V[token] * (torch.eye(20)[END] if token == END else second_V)
    chance, share = chance.double(), torch.zeros(400, dtype=torch.float64)
    share += torch.bincount(thoughts.tokens_PS[:, 0] * 20 + thoughts.tokens_PS[:, 1], minlength=400) / draws
    error = (chance * (1 - chance) / draws).sqrt()
    off = (share.view(20, 20) - chance)[chance * draws > 20] / error[chance * draws > 20]
    assert float(chance.sum()) == pytest.approx(1.0, abs=1e-5)
    assert len(off) > 10
    assert float(off.abs().max()) < 4.5
    assert float(off.square().mean()) < 2


def test_the_generator_decides() -> None:
    (_, _, one, first), (_, _, same, second), (_, _, _, other) = think(3), think(3), think(4)
    assert torch.equal(one.tokens_PT, same.tokens_PT)
    assert torch.equal(first.logprobs_PS, second.logprobs_PS)
    assert not torch.equal(first.tokens_PS, other.tokens_PS)


def test_probabilities_that_round_to_0_and_1() -> None:
    model, before, _, thoughts = think(temperature=1e-4)
    for row in range(12):
        tokens = real(before, row)
        for token in thoughts.tokens_PS[row][thoughts.sampled_PS[row]].tolist():
            assert token == int(plain_logprobs(model, tokens, 1.0)[-1].argmax())
            tokens.append(token)
    assert torch.equal(thoughts.logprobs_PS.exp(), torch.ones(12, 5))


def test_a_pure_sid_vocabulary_can_think_too() -> None:
    _, model, prompts = world((6, 4))
    after, thoughts = sample_thoughts(model, prompts, ThoughtConfig(3), ThoughtMarkers(0), torch.Generator().manual_seed(0))
    assert set(thoughts.tokens_PS.flatten().tolist()) <= {0, 1}
    assert torch.equal(after.length_P, prompts.length_P + thoughts.length_P)


@pytest.mark.parametrize(
    ("config", "markers", "message"),
    [
        (ThoughtConfig(0), MARKERS, r"ThoughtConfig\.max_tokens: 0 must be at least 1"),
        (ThoughtConfig(2), ThoughtMarkers(20), r"ThoughtMarkers: 20 must lie in 0\.\.19"),
        (ThoughtConfig(2), ThoughtMarkers(END, (15, -1)), r"ThoughtMarkers: -1 must lie in 0\.\.19"),
        (ThoughtConfig(2), ThoughtMarkers(5), r"ThoughtMarkers\.end: 5 must not be an SID token"),
    ],
)
def test_thoughts_that_cannot_be_are_refused(config: ThoughtConfig, markers: ThoughtMarkers, message: str) -> None:
    model, prompts = wordy_world()
    with pytest.raises(TrainError, match=message):
        sample_thoughts(model, prompts, config, markers, torch.Generator())


def test_a_model_that_has_diverged_is_refused() -> None:
    model, prompts = wordy_world()
    with torch.no_grad():
        model.lm.lm_head.weight.fill_(torch.nan)
    with pytest.raises(TrainError, match="probabilities: not finite"):
        sample_thoughts(model, prompts, ThoughtConfig(2), MARKERS, torch.Generator())
