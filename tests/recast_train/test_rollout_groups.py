"""Groups of every sampler: what the signal is told, and what is conditioned on the thought."""

import pytest
import torch
from rollout_cases import wordy_world, world

from recast_sim.signal import SignalConfig, get_constructor
from recast_train.groups import Groups, TrainPrompts, draw_groups, kept_leaves, signal_of
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.packed import repeated_logprobs
from recast_train.rollout import RolloutConfig, ThoughtConfig, ThoughtMarkers

MARKERS = ThoughtMarkers(14, (15,))
THINKING = RolloutConfig("iid", 2.0, ThoughtConfig(4))


def draw(model: SidModel, prompts: PromptTokens, name: str, size: tuple[int, int], *rollout: object, draws: int = 20) -> Groups:
    train = TrainPrompts(prompts, torch.arange(len(prompts.tokens_PT))[:, None])
    return draw_groups(model, train, get_constructor(name), SignalConfig(), size, draws, 5, *rollout)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["beam", "stochastic_beam"])
def test_padded_rows_are_no_rollouts(method: str) -> None:
    catalog, model, prompts = world((6, 4))
    groups = draw(model, prompts, "grpo", (4, catalog.leaves + 5), RolloutConfig(method))
    signal = signal_of(groups, "grpo", SignalConfig(), 1)
    assert groups.valid_PG.sum(1).tolist() == [catalog.leaves] * 4
    assert groups.drawn == 4 * catalog.leaves
    assert signal.hits_before_P.tolist() == [1] * 4  # every leaf once: copies of a hit do not count
    assert (signal.advantages_PG[~groups.valid_PG] == 0).all()
    assert len(kept_leaves(groups, signal)) == 4 * catalog.leaves


@pytest.mark.parametrize("name", ["luffy", "dapo"])
def test_log_probabilities_are_given_the_thought_and_at_the_temperature(name: str) -> None:
    model, prompts = wordy_world(6)
    groups = draw(model, prompts, name, (4, 5), THINKING, MARKERS)
    assert groups.thoughts is not None
    assert len(groups.prompt_P) == len(groups.thoughts.tokens_PS)
    for row, prompt in enumerate(groups.prompt_P.tolist()):
        before = prompts.tokens_PT[prompt][prompts.real_PT[prompt]].tolist()
        thought = groups.thoughts.tokens_PS[row][groups.thoughts.sampled_PS[row]].tolist()
        assert groups.tokens.tokens_PT[row][groups.tokens.real_PT[row]].tolist() == [*before, *thought, 15]
    rows = torch.arange(len(groups.prompt_P))
    with torch.no_grad():
        of_rollouts = repeated_logprobs(model, groups.tokens, rows.repeat_interleave(5), groups.leaf_PG.flatten(), 2.0).sum(1)
        of_anchors = repeated_logprobs(model, groups.tokens, rows, groups.target_leaf_P, 2.0).sum(1)
    assert torch.allclose(groups.logprob_PG.flatten(), of_rollouts, atol=1e-4)
    if name == "luffy":
        assert groups.anchor_logprob_P is not None
        assert torch.allclose(groups.anchor_logprob_P, of_anchors, atol=1e-4)


def test_groups_of_several_draws_keep_their_thoughts() -> None:
    model, prompts = wordy_world(6)
    sizes = [draw(model, prompts, "dapo", (6, 3), THINKING, MARKERS, draws=n) for n in (1, 30)]
    assert len(sizes[0].prompt_P) < len(sizes[1].prompt_P)
    assert all(len(groups.thoughts.tokens_PS) == len(groups.prompt_P) for groups in sizes if groups.thoughts)
    assert sizes[1].drawn > sizes[0].drawn


def test_a_constructor_that_samples_nothing_still_thinks_before_its_anchor() -> None:
    model, prompts = wordy_world(6)
    groups = draw(model, prompts, "sft", (4, 5), THINKING, MARKERS)
    assert groups.thoughts is not None
    assert groups.drawn == 0
    assert torch.equal(groups.tokens.length_P, prompts.length_P[groups.prompt_P] + groups.thoughts.length_P + 1)


def test_thoughts_without_markers_are_refused() -> None:
    model, prompts = wordy_world()
    with pytest.raises(TrainError, match="markers: None"):
        draw(model, prompts, "grpo", (2, 3), THINKING)
