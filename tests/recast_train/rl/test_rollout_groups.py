"""Groups of every sampler: what the signal is told, and what is conditioned on the thought."""

from dataclasses import replace

import pytest
import torch
from rollout_cases import wordy_world, world

from recast_sim.runs import derive_seed
from recast_sim.signal import SignalConfig, behind_hints, get_constructor
from recast_sim.signal.groups import kept_leaves, signal_of
from recast_train.engine import Engine
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.model.shared_prompts import repeated_logprobs
from recast_train.rl.rollout_groups import Groups, TrainPrompts, draw_groups
from recast_train.rollout import RolloutConfig, ThoughtConfig, ThoughtMarkers, sample_thoughts

END, BEGIN = 14, 15
LONGEST = 4
THINKING = RolloutConfig("iid", 2.0, ThoughtConfig(LONGEST))


def draw(
    engine: Engine,
    model: SidModel,
    prompts: PromptTokens,
    name: str,
    size: tuple[int, int],
    rollout: RolloutConfig,
    draws: int = 20,
) -> Groups:
    train = TrainPrompts(prompts, torch.arange(len(prompts.tokens_PT))[:, None])
    return draw_groups(engine, engine.prepare(model), train, get_constructor(name), SignalConfig(), size, draws, 5, rollout)


def thinking_world(prompts: int = 6) -> tuple[SidModel, PromptTokens]:
    model, tokens = wordy_world(prompts)
    model.vocabulary = replace(model.vocabulary, begin=(BEGIN,), thought_end=END)
    return model, tokens


def thoughts(groups: Groups, prompts: PromptTokens) -> list[list[int]]:
    """The thought of each group, read off its tokens: what stands between the prompt and BEGIN."""
    found = []
    for row, prompt in enumerate(groups.scored.prompt_P.tolist()):
        before = prompts.tokens_PT[prompt][prompts.real_PT[prompt]].tolist()
        whole = groups.tokens.tokens_PT[row][groups.tokens.real_PT[row]].tolist()
        assert whole[: len(before)] == before
        assert whole[-1] == BEGIN
        found.append(whole[len(before) : -1])
    return found


def assert_whole(found: list[list[int]]) -> None:
    """Every thought is there up to its end token, or as long as it may be."""
    assert {len(thought) for thought in found} <= set(range(1, LONGEST + 1))
    assert all(END not in thought[:-1] for thought in found)
    assert all(thought[-1] == END for thought in found if len(thought) < LONGEST)


@pytest.mark.parametrize("method", ["beam", "stochastic_beam"])
def test_padded_rows_are_no_rollouts(method: str, engine: Engine) -> None:
    catalog, model, prompts = world((6, 4))
    groups = draw(engine, model, prompts, "grpo", (4, catalog.leaves + 5), RolloutConfig(method))
    signal = signal_of(groups.scored, get_constructor("grpo"), SignalConfig(), torch.Generator().manual_seed(1))
    assert groups.scored.valid_PG.sum(1).tolist() == [catalog.leaves] * 4
    assert groups.scored.drawn == 4 * catalog.leaves
    assert signal.hits_before_P.tolist() == [1] * 4  # every leaf once: copies of a hit do not count
    assert (signal.advantages_PG[~groups.scored.valid_PG] == 0).all()
    leaves = kept_leaves(groups.scored, signal.plan, signal.group_size, torch.arange(4))
    assert leaves.reshape(4, -1).sort(1).values.tolist() == [list(range(catalog.leaves))] * 4


def test_kept_leaves_of_some_of_the_groups(engine: Engine) -> None:
    _, model, prompts = world((4, 3, 5), 6)
    groups = draw(engine, model, prompts, "recast", (6, 4), RolloutConfig())
    signal = signal_of(groups.scored, get_constructor("recast"), SignalConfig(), torch.Generator().manual_seed(1))
    whole = kept_leaves(groups.scored, signal.plan, signal.group_size, torch.arange(6))
    assert torch.equal(
        whole[signal.plan.anchor_N],
        groups.scored.anchor_leaf_P[(signal.plan.rows_N // signal.group_size)[signal.plan.anchor_N]],
    )
    later = signal.plan.rows_N // signal.group_size >= 3
    assert 0 < int(later.sum()) < len(later)
    columns = {name: getattr(signal.plan, name)[later] for name in ("advantages_NL", "weights_N", "anchor_N")}
    plan = replace(signal.plan, rows_N=signal.plan.rows_N[later] - 3 * signal.group_size, **columns)
    assert torch.equal(kept_leaves(groups.scored, plan, signal.group_size, torch.tensor([3, 4, 5])), whole[later])


@pytest.mark.parametrize("name", ["luffy", "dapo"])
def test_log_probabilities_are_given_the_thought_and_at_the_temperature(name: str, engine: Engine) -> None:
    model, prompts = thinking_world()
    groups = draw(engine, model, prompts, name, (4, 5), THINKING)
    found = thoughts(groups, prompts)
    assert_whole(found)
    if name == "luffy":
        generator = torch.Generator().manual_seed(derive_seed(5, 0))
        asked = prompts.take(torch.randint(len(prompts.tokens_PT), (4,), generator=generator))
        _, expected = sample_thoughts(model, asked, THINKING.thought, ThoughtMarkers(END, (BEGIN,)), generator)
        rows = zip(expected.tokens_PS, expected.sampled_PS, strict=True)
        assert found == [tokens[sampled].tolist() for tokens, sampled in rows]
        assert groups.thought_tokens == int(expected.sampled_PS.sum())
    rows = torch.arange(len(groups.scored.prompt_P))
    with torch.no_grad():
        of_rollouts = repeated_logprobs(
            model, groups.tokens, rows.repeat_interleave(5), groups.scored.leaf_PG.flatten(), 2.0
        ).sum(1)
        of_anchors = repeated_logprobs(model, groups.tokens, rows, groups.scored.anchor_leaf_P, 2.0).sum(1)
    assert torch.allclose(groups.scored.logprob_PG.flatten(), of_rollouts, atol=1e-4)
    if name == "luffy":
        assert torch.allclose(groups.scored.extras["anchor_logprob_P"], of_anchors, atol=1e-4)


def test_groups_of_several_draws_keep_their_thoughts(engine: Engine) -> None:
    model, prompts = thinking_world()
    sizes = [draw(engine, model, prompts, "dapo", (6, 3), THINKING, draws=n) for n in (1, 30)]
    assert len(sizes[0].scored.prompt_P) < len(sizes[1].scored.prompt_P)
    assert sizes[1].scored.drawn > sizes[0].scored.drawn
    assert sizes[1].thought_tokens > sizes[0].thought_tokens
    for groups in sizes:
        assert_whole(thoughts(groups, prompts))
        assert groups.thought_tokens > sum(map(len, thoughts(groups, prompts)))  # those that were thrown away count
        assert len(groups.tokens.tokens_PT) == len(groups.scored.prompt_P)


def test_a_constructor_that_samples_nothing_still_thinks_before_its_anchor(engine: Engine) -> None:
    model, prompts = thinking_world()
    groups = draw(engine, model, prompts, "sft", (4, 5), THINKING)
    assert groups.scored.drawn == 0
    assert_whole(thoughts(groups, prompts))
    assert groups.thought_tokens == sum(map(len, thoughts(groups, prompts))) > 0


def test_thoughts_of_a_vocabulary_without_any_are_refused(engine: Engine) -> None:
    model, prompts = wordy_world()
    with pytest.raises(TrainError, match="this vocabulary has no thoughts"):
        draw(engine, model, prompts, "grpo", (2, 3), THINKING)


@pytest.mark.parametrize("name", ["grpo", "recast", "sft"])
def test_given_codes_get_no_number_but_in_anchors(engine: Engine, name: str) -> None:
    _, model, prompts = world((4, 3, 5), 6)
    train = TrainPrompts(prompts, torch.arange(6)[:, None])
    method, rollout = behind_hints(get_constructor(name), 1), RolloutConfig(hint_levels=1)
    groups = draw_groups(engine, engine.prepare(model), train, method, SignalConfig(), (6, 8), 1, 5, rollout).scored
    if method.rollouts:
        codes = model.table("leaf_codes")
        assert (codes[groups.leaf_PG][..., 0] == codes[groups.anchor_leaf_P][:, None, 0]).all()
    plan = signal_of(groups, method, SignalConfig(), torch.Generator()).plan
    assert len(plan.rows_N) > 0
    given_N = plan.advantages_NL[:, 0]
    assert torch.equal(given_N != 0, plan.anchor_N)
    assert (plan.advantages_NL[:, 1:] != 0).any()
