"""Whole steps of verl's V1 trainer on a CPU, from the launch script to the saved weights (make test-verl)."""

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here; make test-verl has an environment for it")

from transformers import AutoModelForCausalLM, AutoTokenizer
from verl_cpu.tiny_world import write_world
from verl_cpu.whole_steps import BATCH, G, run_steps

from recast_train.adapters.verl.anchors import AnchorTokens

pytestmark = [pytest.mark.adapters, pytest.mark.verl]
ALL_ZERO = "reward.custom_reward_function.path=pkg://verl_cpu.zero_reward"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, thought=False)
    return folder


def test_recast_learns_its_anchors_from_all_zero_groups(world: Path, tmp_path: Path) -> None:
    run = run_steps(world, tmp_path, "recast", ALL_ZERO, "actor_rollout_ref.actor.strategy=fsdp2", steps=12)
    assert len(run.logged) == 12
    for step in run.logged:
        assert (step["recast/before/all_zero"], step["recast/repaired"]) == (1, 1)
        assert (step["recast/rows_drawn"], step["recast/rows_kept"]) == (BATCH * G, 2 * BATCH)
        assert step["actor/grad_norm"] > 0
    assert all(run.moved().values())
    before = anchor_logprobs(world, world / "model")
    after = anchor_logprobs(world, tmp_path / "saved/global_step_12/actor/huggingface")
    assert (after > before).all()


def test_grpo_moves_nothing_from_the_same_groups(world: Path, tmp_path: Path) -> None:
    whole = f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}"
    run = run_steps(world, tmp_path, "grpo", ALL_ZERO, "actor_rollout_ref.actor.strategy=fsdp2", whole, steps=2)
    for step in run.logged:
        assert (step["recast/before/all_zero"], step["recast/learnable"], step["actor/grad_norm"]) == (1, 0, 0)
    assert not any(run.moved().values())


def test_two_ranks_train_anchors_behind_thoughts(tmp_path: Path) -> None:
    """FSDP2 alone: FSDP1's weights cannot be gathered from two CPU ranks for the checkpoint ("setStorage: out of bounds")."""
    write_world(tmp_path, thought=True)
    run = run_steps(tmp_path, tmp_path, "recast", ALL_ZERO, "actor_rollout_ref.actor.strategy=fsdp2", steps=2, ranks=2)
    for step, record in zip(run.logged, run.records, strict=True):
        anchors = {key: row for key, row in record["trained"].items() if row["rm_scores"].sum() > 0}
        assert step["recast/before/all_zero"] == 1
        assert step["recast/rows_kept"] == 2 * len(anchors) > 0
        for key, row in anchors.items():
            siblings = [own for name, own in record["drawn"].items() if name.split("_")[0] == key.split("_")[0]]
            thoughts = [AnchorTokens.of(own["extra_info"]).thought(own["responses"]) for own in siblings]
            answer = siblings[0]["extra_info"]["recast"]["anchors"][0]
            wanted = [[*thought_S.tolist(), *answer] for thought_S in thoughts if thought_S is not None]
            assert row["responses"].tolist() in wanted
    assert all(run.moved().values())


def test_a_group_is_one_thought_and_a_beam_of_distinct_sids(tmp_path: Path) -> None:
    write_world(tmp_path, thought=True)
    run = run_steps(tmp_path, tmp_path, "recast", "actor_rollout_ref.actor.strategy=fsdp2", steps=2, beam=True)
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, row in run.records[0]["drawn"].items():
        groups.setdefault(key.split("_")[0], []).append(row)
    assert [len(rows) for rows in groups.values()] == [G] * BATCH
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    searched = 0
    for rows in groups.values():
        layout = AnchorTokens.of(rows[0]["extra_info"])
        thoughts = [layout.thought(row["responses"]) for row in rows]
        if thoughts[0] is None:
            assert len({tuple(row["responses"].tolist()) for row in rows}) == 1
            continue
        searched += 1
        assert all(thought_S is not None and thought_S.equal(thoughts[0]) for thought_S in thoughts)
        answer, (first, levels) = list(layout.answers[0]), layout.codes
        start = [*rows[0]["prompts"].tolist(), *thoughts[0].tolist(), *answer[:first]]
        wanted = [[*start, *codes, *answer[first + levels :]] for codes in plain_beam(lm, start, levels)]
        assert [[*row["prompts"].tolist(), *row["responses"].tolist()] for row in rows] == wanted
    assert searched > 0
    assert run.logged[0]["recast/rows_kept"] == 2 * searched
    assert all(run.moved().values())


def plain_beam(lm: Any, start: list[int], levels: int) -> list[tuple[int, ...]]:
    """The G best continuations, every beam scored whole at every level."""
    beams: dict[tuple[int, ...], float] = {(): 0.0}
    for _ in range(levels):
        grown = {}
        for tokens, total in beams.items():
            with torch.no_grad():
                logprobs = lm(torch.tensor([[*start, *tokens]])).logits[0, -1].log_softmax(-1)
            grown |= {(*tokens, token): total + float(logprob) for token, logprob in enumerate(logprobs)}
        beams = dict(sorted(grown.items(), key=lambda item: -item[1])[:G])
    return list(beams)


def anchor_logprobs(world: Path, checkpoint: Path) -> torch.Tensor:
    """Log-probability of every prompt's first anchor under a checkpoint."""
    lm = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(world / "model")
    found = []
    for row in pl.read_parquet(world / "data/train.parquet").iter_rows(named=True):
        asked = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        anchor = row["extra_info"]["recast"]["anchors"][0]
        ids = torch.tensor([asked + anchor])
        with torch.no_grad():
            logprobs = lm(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        found.append(float(logprobs[-len(anchor) :].sum()))
    assert all(map(math.isfinite, found))
    return torch.tensor(found)
