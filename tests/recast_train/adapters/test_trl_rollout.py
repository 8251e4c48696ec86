"""Trie-constrained rollouts in TRL: legal, exact log-probabilities, one pass over a prompt; SIDs to tokens and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trl_world as world

from recast_sim.catalog import Catalog
from recast_train.adapters.trl import SidScores, SidTokens, constrained_rollout
from recast_train.model import TrainError

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore::FutureWarning")]  # transformers on its own options

G = world.G
TREE = [tuple(world.SIDS.encode(sid)) for sid in world.CODES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    world.write_checkpoint(folder)
    return folder


@torch.no_grad()
def expected_logprobs(lm: Any, prompt: list[int], sid: list[int], temperature: float) -> list[float]:
    """Token by token, from logits of the whole vocabulary cut to the tokens that some item goes on with."""
    found = []
    for level, token in enumerate(sid):
        legal = sorted({path[level] for path in TREE if path[:level] == tuple(sid[:level])})
        logits = lm(input_ids=torch.tensor([[*prompt, *sid[:level]]])).logits[0, -1, legal] / temperature
        found.append(float(logits.log_softmax(0)[legal.index(token)]))
    return found


def test_rollouts_are_items_with_the_log_probabilities_of_their_draw(folder: Path) -> None:
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS), temperature=0.7)
    prompts = [prompt for prompt in world.PROMPTS for _ in range(G)]
    run.model.train()
    found, again = run.rollout_func(prompts, run), run.rollout_func(prompts, run)
    assert found["completion_ids"] != again["completion_ids"]
    assert {tuple(ids) for ids in found["completion_ids"]} <= set(TREE)
    assert len({tuple(ids) for ids in found["completion_ids"]}) > 5
    assert run.model.training
    lm = run.model.eval()
    for row, prompt in enumerate(prompts):
        ids = run.processing_class(prompt)["input_ids"]
        assert found["prompt_ids"][row] == ids
        expected = expected_logprobs(lm, ids, found["completion_ids"][row], temperature=0.7)
        assert found["logprobs"][row] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_groups_prompt_is_computed_once(folder: Path) -> None:
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS))
    shapes, prompts = [], [prompt for prompt in world.PROMPTS[:3] for _ in range(G)]
    run.rollout_func(prompts, run)  # the first call checks the model's logits
    handle = run.model.base_model.register_forward_pre_hook(
        lambda _, __, named: shapes.append(tuple(named["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    run.rollout_func(prompts, run)
    handle.remove()
    longest = max(len(run.processing_class(prompt)["input_ids"]) for prompt in prompts)
    assert shapes == [(3, longest), (3, G), (3, G)]


def test_groups_that_evaluation_cuts_are_drawn_row_by_row(folder: Path) -> None:
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS))
    found = run.rollout_func([world.PROMPTS[0]] * 3 + [world.PROMPTS[1]] * 3, run)
    ids = [run.processing_class(prompt)["input_ids"] for prompt in world.PROMPTS[:2]]
    assert found["prompt_ids"] == [ids[0]] * 3 + [ids[1]] * 3
    assert {tuple(row) for row in found["completion_ids"]} <= set(TREE)


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "recast"])
def test_training_with_it_and_what_stands_between_prompt_and_sid(folder: Path, stock: bool) -> None:
    """In both trainers, under bf16 autocast; `begin` closes the prompt."""
    begun = SidTokens(world.SIDS.catalog, world.SIDS.offset, begin=(3,))
    run = world.trainer(folder, None, stock=stock, rollout_func=constrained_rollout(begun), bf16=True, max_steps=2)
    run.train()
    prompts = run._buffered_inputs[0]["prompt_ids"]
    assert (prompts[:, -1] == 3).all()
    assert len(prompts) == 4 * (G if stock else 2)
    assert run.state.log_history[-1]["train_loss"] == run.state.log_history[-1]["train_loss"]  # a number


def test_likelihoods_reach_a_constructor_that_ranks_by_them(folder: Path) -> None:
    run = world.trainer(folder, constructor="rank_reward", rollout_func=world.scripted(world.one_hit, logprobs=True))
    run.train()
    advantages = run._buffered_inputs[0]["advantages"].view(4, G)
    assert (advantages[[0, 2]] == 0).all()  # no hit, no signal
    hit = advantages[1].tolist()
    assert hit[1] > 0 > hit[3] > hit[2] > hit[0]  # the likelier miss is pushed further down


def test_what_it_refuses(folder: Path) -> None:
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS))
    for name, value in (("mask_truncated_completions", True), ("use_vllm", True), ("off_policy_mask_threshold", 0.1)):
        before = getattr(run, name)
        setattr(run, name, value)
        with pytest.raises(TrainError, match=f"{name}: {value} would "):
            run.rollout_func([world.PROMPTS[0]], run)
        setattr(run, name, before)
    run.accelerator.state.distributed_type = "FSDP"
    try:
        with pytest.raises(TrainError, match="distributed_type: FSDP shards the weights"):
            run.rollout_func([world.PROMPTS[0]], run)
    finally:
        run.accelerator.state.distributed_type = "NO"


def test_sids_to_tokens_and_back() -> None:
    sids = world.SIDS
    assert sids.encode((0, 1, 2)) == [14, 18, 22]
    assert sids.parse([5, *sids.encode((0, 1, 2)), 14, *sids.encode((2, 2, 2)), 3]) == [(0, 1, 2), (2, 2, 2)]
    assert sids.parse([14, 18]) == []
    with pytest.raises(TrainError, match=r"offset: \[1, 2\] must hold one token for each of 3 levels"):
        SidTokens(sids.catalog, (1, 2))
    with pytest.raises(TrainError, match=r"offset: \[5, 9, 7\] overlap"):
        SidTokens(Catalog.from_codes(world.CODES, world.SIZES), (5, 9, 7))


def test_scores_are_against_the_best_of_several_targets() -> None:
    scores, hit, near, far = SidScores(world.SIDS.parse, "gold"), (0, 1, 2), (0, 1, 0), (2, 0, 0)
    completions = [world.SIDS.encode(sid) for sid in (hit, near, far)] + [[3, 4]]
    gold = [[hit], [(1, 1, 1), hit], [hit], [hit]]
    examples = [{"gold": sids} for sids in gold]
    assert scores.reward(completion_ids=completions, prompts=None, gold=gold) == [1, 0, 0, 0]
    assert scores.structural(completions, examples) == pytest.approx([1.0, 0.1, 0.0, 0.0])
    both = [[*completions[2], *completions[1]]]
    assert scores.reward(both, gold=[[near]]) == [0]  # the first SID counts
    assert scores.structural(both, examples[:1]) == pytest.approx([0.05])
