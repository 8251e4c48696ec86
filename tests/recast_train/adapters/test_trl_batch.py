"""TRL goes on where nobody scored a group; anchors and targets that are none are refused, by the row that has them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import trl_world as world
from datasets import Dataset

from recast_sim.signal import construct
from recast_train.adapters.trl import SidLevels, SidScores, constrained_rollout
from recast_train.adapters.trl.batch_checks import checked_targets, whole_numbers
from recast_train.adapters.trl.unscored import scored_groups, signal_of_scored
from recast_train.model import TrainError

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore::FutureWarning")]  # transformers on its own options

G, SID = world.G, world.SIDS.encode(world.CODES[0])
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    world.write_checkpoint(folder)
    return folder


def rewards_of(special: dict[int, float | None]) -> Any:
    """The usual rewards, but for all rows of some prompts."""

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        usual = world.SCORES.reward(completion_ids, **columns)
        return [special.get(world.PROMPTS.index(p), r) for p, r in zip(columns["prompts"], usual, strict=True)]

    return reward


@pytest.mark.parametrize("worth", [None, -INF, INF])
@pytest.mark.parametrize("constructor", ["recast", "grpo"])
def test_a_group_that_nobody_scored_is_as_if_not_drawn(folder: Path, worth: float | None, constructor: str) -> None:
    run = world.trainer(folder, constructor=constructor, reward_funcs=rewards_of({0: worth, 2: worth}))
    assert any(part.any() for part in world.change(run).values())
    whole = world.trainer(folder, constructor=constructor, reward_funcs=rewards_of(dict.fromkeys(range(4), worth)))
    assert all(part.isfinite().all() and not part.any() for part in world.change(whole).values())


def test_the_signal_of_what_is_left() -> None:
    rewards = torch.tensor([[NAN, NAN], [1.0, 0.0], [0.0, -INF], [0.0, 0.0], [NAN, 1.0]])
    scored_P = scored_groups(rewards.reshape(-1, 1), 2)
    assert scored_P.tolist() == [False, True, False, True, True]
    valid_PG = ~rewards.isnan()
    alone = construct("grpo", rewards[scored_P].nan_to_num(), valid_PG=valid_PG[scored_P])
    found = signal_of_scored(scored_P, lambda at: construct("grpo", rewards[at].nan_to_num(), valid_PG=valid_PG[at]))
    assert alone.plan.rows_N.tolist() == [0, 1, 2, 3, 5]
    assert found.plan.rows_N.tolist() == [2, 3, 6, 7, 9]
    assert found.plan.advantages_NL.equal(alone.plan.advantages_NL)
    assert found.advantages_PG[scored_P].equal(alone.advantages_PG)
    assert found.anchor_slot_P.tolist() == [-1] * 5
    assert found.learnable_P.tolist() == [False, True, False, False, False]
    none = signal_of_scored(torch.zeros(3, dtype=torch.bool), lambda at: construct("grpo", torch.tensor([[1.0, 0.0]])))
    assert len(none.plan.rows_N) == 0
    assert none.advantages_PG.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("anchor", "says"),
    [
        ("<s_a_0> nobody", "anchor: '<s_a_0> nobody' holds a token that the tokenizer lacks"),
        ([1.5, 2.0, 3.0], r"anchor: \[1.5, 2.0, 3.0\] must be text or a list of token ids, whole numbers"),
        ([[1, 2]], "must be text or a list of token ids"),
        ([True, 2], "must be text or a list of token ids"),
        (7, "anchor: 7 must be text or a list of token ids"),
        ([], r"anchor: \[\] is empty; give None where a prompt has no ground truth"),
        ([*SID[:2], 10**6], "must hold ids from 0 to "),
        ([-1, *SID[1:]], "must hold ids from 0 to "),
        (SID * 3, r"has 9 tokens, more than max_completion_length \(8\)"),
        (world.SIDS.encode(world.CODES[5]), "none of the row's targets"),
        ([3, 4], "is no semantic ID, none of the row's targets"),
    ],
)
def test_an_anchor_that_is_none_names_its_row(folder: Path, anchor: Any, says: str) -> None:
    def of(example: dict[str, Any]) -> Any:
        return anchor if example["prompt"] == world.PROMPTS[2] else example["anchor"]

    with pytest.raises(TrainError, match=rf"{says}.*\(row {2 * G} of the batch, prompt {re.escape(world.PROMPTS[2])}\)"):
        world.trainer(folder, anchor=of).train()


@pytest.mark.parametrize(
    "value", [None, "text", [3, 0, 2], [[1.5, 0, 2]], [["a"]], 7, [[]], [[0, -1, 2]], [[True, 0, 1]], {"a": 1}, [[[0]]]]
)
def test_targets_that_are_none_name_their_row(value: Any) -> None:
    with pytest.raises(TrainError, match=r"targets: .* must be a list of semantic IDs.*\(row 1 of the batch, prompt b\)"):
        checked_targets([[[0, 1, 2]], value], ["a", "b"], "targets")
    with pytest.raises(TrainError, match=r"must be a list of semantic IDs.*\(row 1 of the batch, prompt b\)"):
        SidScores(world.SIDS.parse).reward([SID, SID], prompts=["a", "b"], targets=[[[0, 1, 2]], value])


def test_targets_of_other_levels_codes_and_columns() -> None:
    with pytest.raises(TrainError, match=r"as many levels as every other target, 3 \(row 1"):
        checked_targets([[[0, 1, 2]], [[0, 1]]], ["a", "b"], "targets")
    with pytest.raises(
        TrainError, match=r"must have a code below \(3, 3, 3\), one for each level \(row 0 of the batch, prompt a"
    ):
        SidLevels(world.SIDS)([SID], [{"prompt": "a", "targets": [[0, 9, 2]]}])
    with pytest.raises(TrainError, match="targets: 'gold' is no column of the data set"):
        SidScores(world.SIDS.parse, "gold").reward([SID], prompts=["a"], targets=[[[0, 1, 2]]])
    with pytest.raises(TrainError, match="'targets' is no column of the data set, which has prompt"):
        SidScores(world.SIDS.parse).structural([SID], [{"prompt": "a"}])
    assert checked_targets([[], torch.tensor([[1, 2]])], ["a", "b"], "targets") == [[], [[1, 2]]]
    assert whole_numbers(torch.tensor([1, 2])) == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"repetition_penalty": 1.2}, {"generation_kwargs": {"temperature": 2.0}}],
)
def test_constrained_rollouts_refuse_what_they_do_not_do(folder: Path, options: dict[str, Any]) -> None:
    (name,) = options
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS), **options)
    with pytest.raises(TrainError, match=f"{name}: .* would shape TRL's own sampling"):
        run.rollout_func(list(world.PROMPTS[:1]) * G, run)


def test_constrained_rollouts_must_fit(folder: Path) -> None:
    run = world.trainer(folder, None, rollout_func=constrained_rollout(world.SIDS), max_completion_length=2)
    with pytest.raises(TrainError, match="max_completion_length: 2 is shorter than a semantic ID; set it to 3"):
        run.rollout_func(list(world.PROMPTS[:1]) * G, run)


def test_a_data_set_without_targets_is_told_so(folder: Path) -> None:
    rows = world.examples(4).remove_columns("targets")
    with pytest.raises(TrainError, match="'targets' is no column of the data set"):
        world.trainer(folder, train_dataset=Dataset.from_dict(rows.to_dict())).train()
