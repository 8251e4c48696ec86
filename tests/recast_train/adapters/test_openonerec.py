"""Rows that OpenOneRec's actor should see, against the signal module and by hand; anchors written as tokens."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_sim.signal import SignalError, construct, get_constructor, list_constructors, register, unregister
from recast_train.adapters.flat_rows import select_rows
from recast_train.adapters.openonerec import actor_rows, write_anchors

pytestmark = pytest.mark.adapters
BEGIN, END, PAD = 70, 90, 0
AT_HAND = [c.name for c in list_constructors() if not c.needs and not c.appends]


@st.composite
def batches(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    P, G = draw(st.integers(1, 5)), draw(st.integers(9, 12))  # above pods' width
    hits = draw(st.lists(st.booleans(), min_size=P * G, max_size=P * G))
    scores = draw(st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5]), min_size=P * G, max_size=P * G))
    rewards_PG = torch.tensor(hits).float().reshape(P, G)
    order_R = torch.randperm(P * G, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return rewards_PG, torch.where(rewards_PG > 0, 1.0, torch.tensor(scores).reshape(P, G)), order_R


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(batches(), st.sampled_from(AT_HAND), st.sampled_from([1, 2, 8]))
def test_rows_in_any_order_keep_their_advantages(batch: Any, constructor: str, multiple: int) -> None:
    rewards_PG, structural_PG, order_R = batch
    P, G = rewards_PG.shape
    group_R, slot_R = (order_R // G).tolist(), (order_R % G).tolist()
    flat = (rewards_PG.reshape(-1)[order_R], structural_PG.reshape(-1)[order_R])
    kept = select_rows(constructor, group_R, *flat, has_anchor_R=[True] * (P * G), slot_R=slot_R)
    groups = torch.tensor(kept.groups)
    plain = construct(constructor, rewards_PG[groups], structural_PG[groups], has_anchor_P=torch.ones(P, dtype=torch.bool))
    torch.testing.assert_close(kept.coefficient_N, plain.plan.weights_N * plain.plan.advantages_N)
    assert torch.equal(order_R[kept.row_N], groups[plain.plan.rows_N // G] * G + plain.plan.rows_N % G)
    rows = actor_rows(flat[0], flat[1], group_R, constructor=constructor, multiple=multiple)
    assert len(rows.rows_N) % multiple == 0
    assert not rows.advantages_N[rows.filler_N].any()
    assert not rows.anchor_N[rows.filler_N].any()
    if not rows.filler_N.all():
        assert len(rows.rows_N) - int(rows.filler_N.sum()) == len(plain.plan.rows_N)
        assert int(rows.filler_N.sum()) < multiple


def test_a_training_step_of_a_fork_by_hand() -> None:
    """What docs/openonerec.md puts after the reward, on a dictionary with the fork's fields."""
    thought, P, L, G = [20, 21, END], 3, 3, 4
    sids = torch.tensor([[[1, 5, 8], [1, 5, 9], [1, 6, 8], [2, 5, 8]]] * P)
    targets_PL = torch.tensor([[3, 3, 3], [1, 5, 8], [3, 3, 3]])
    answers = torch.cat(
        [torch.tensor([*thought, BEGIN]).expand(P * G, -1), sids.reshape(-1, L), torch.full((P * G, 1), PAD)], 1
    )
    batch = {"responses": answers, "uid": ["a"] * G + ["b"] * G + ["c"] * G, "response_mask": torch.ones_like(answers)}
    rewards, structural = torch.zeros(P * G), torch.tensor([0.01, 0.1, 0.0, 0.0] * P)
    rewards[4], structural[4] = 1.0, 1.0
    can_write = [uid != "c" for uid in batch["uid"]]
    kept = actor_rows(rewards, structural, batch["uid"], has_anchor_R=can_write, multiple=8)
    # a: the anchor in its lowest row (2, the first of two), the highest miss against it; b: hit and highest miss; c: nothing
    assert kept.rows_N.tolist() == [1, 2, 4, 5, 1, 1, 1, 1]
    assert kept.advantages_N.tolist() == [-1, 1, 1, -1, 0, 0, 0, 0]
    assert kept.anchor_N.tolist() == [False, True] + [False] * 6
    assert kept.filler_N.tolist() == [False] * 4 + [True] * 4
    target_NL = targets_PL[kept.rows_N // G]
    responses = write_anchors(batch["responses"][kept.rows_N], kept.anchor_N, target_NL, begin=BEGIN, thought_end=END)
    assert responses[1].tolist() == [*thought, BEGIN, 3, 3, 3, PAD]
    assert torch.equal(responses[[0, 2, 3]], batch["responses"][kept.rows_N[[0, 2, 3]]])


def test_an_sid_inside_a_thought_is_left_alone() -> None:
    row = torch.tensor([[BEGIN, 1, 2, END, 30, BEGIN, 3, 4, PAD]])
    written = write_anchors(row, torch.tensor([True]), torch.tensor([[8, 9]]), begin=BEGIN, thought_end=END)
    assert written.tolist() == [[BEGIN, 1, 2, END, 30, BEGIN, 8, 9, PAD]]
    written = write_anchors(row, torch.tensor([True]), torch.tensor([[8, 9]]), begin=BEGIN)
    assert written.tolist() == [[BEGIN, 8, 9, END, 30, BEGIN, 3, 4, PAD]]


@pytest.mark.parametrize("row", [[1, 2, 3, 4, 5], [BEGIN, 1, 2, 3, 4], [END, 1, 2, 3, BEGIN], [END, 1, 2, BEGIN, 3]])
def test_a_row_without_a_place_for_the_anchor_is_named(row: list[int]) -> None:
    rows = torch.tensor([[END, BEGIN, 1, 2, 3], row])
    with pytest.raises(SignalError, match="responses_NS: row 1 has no place"):
        write_anchors(rows, torch.tensor([True, True]), torch.ones(2, 3).long(), begin=BEGIN, thought_end=END)


def test_no_row_to_keep_leaves_fillers_alone() -> None:
    kept = actor_rows(torch.zeros(4), torch.zeros(4), ["a"] * 4, has_anchor_R=[False] * 4, multiple=2)
    assert (kept.rows_N.tolist(), kept.filler_N.tolist()) == ([0, 0], [True, True])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rewards_R": torch.zeros(3)}, "rewards_R: 3 values for 4 rows"),
        ({"rewards_R": [None] * 4}, "rewards_R: list is not a table of numbers"),
        ({"structural_R": torch.zeros(5)}, "structural_R: 5 values for 4 rows"),
        ({"structural_R": None}, "structural_PG: missing"),
        ({"structural_R": torch.full((4,), 10.0)}, r"rollout 0 is 10; scores must lie in \[0, 1\]"),  # logged times 100
        ({"prompt_R": [], "rewards_R": [], "structural_R": []}, "group_R: no rows"),
        ({"multiple": 0}, "multiple: 0 must be at least 1"),
        ({"constructor": "visurf"}, "visurf appends a row"),
        ({"constructor": "no"}, "'no' is not registered"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], said: str) -> None:
    given = {"rewards_R": torch.zeros(4), "structural_R": torch.zeros(4), "prompt_R": ["a", "a", "b", "b"], **change}
    with pytest.raises(SignalError, match=said):
        actor_rows(given.pop("rewards_R"), given.pop("structural_R"), given.pop("prompt_R"), **given)


@pytest.mark.parametrize("slots", [[0, 0], [0, -1]])
def test_slots_must_be_distinct(slots: list[int]) -> None:
    with pytest.raises(SignalError, match="slot_R: two rows"):
        select_rows("grpo", ["a", "a"], [1.0, 0.0], slot_R=slots)


def test_an_appended_anchor_replaces_no_row() -> None:
    kept = select_rows("visurf", ["a"] * 3, [0.0, 0.0, 1.0], has_anchor_R=[True] * 3)
    assert (kept.slot_N.tolist(), kept.row_N.tolist()) == ([0, 1, 2, 3], [0, 1, 2, -1])


def test_a_constructor_of_ones_own_is_taken() -> None:
    register("mine", source="test")(replace(get_constructor("dr_grpo")).apply)
    try:
        assert actor_rows([1.0, 0.0], None, [0, 0], constructor="mine").advantages_N.tolist() == [0.5, -0.5]
    finally:
        unregister("mine")
