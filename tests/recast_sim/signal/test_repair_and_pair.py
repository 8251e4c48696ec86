"""Repair, and recast's boundary pair."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import ANCHORED, WIDTH_TWO, batches, facts, final_state, mask, one_group, tensor
from signal_oracle import recast_loop, repair_group

from recast_sim.signal import (
    Constructor,
    SignalConfig,
    construct,
    get_constructor,
    group_state,
    repair_all_zero,
)

pytestmark = pytest.mark.property


@facts
@given(batch=batches(rewards="graded"))
def test_repair_places_one_anchor_in_the_lowest_slot_of_groups_without_a_hit(batch):
    before = group_state(**batch)
    after = repair_all_zero(before)
    columns = (batch[n].tolist() for n in ("rewards_PG", "structural_PG", "valid_PG", "has_anchor_P"))
    assert after.anchor_slot_P.tolist() == [repair_group(*rows) for rows in zip(*columns, strict=True)]
    changed = (after.rewards_PG != before.rewards_PG) | (after.valid_PG != before.valid_PG)
    assert torch.equal(changed, mask(after.anchor_slot_P, changed.shape[1]))
    assert (after.structural_PG[changed] == 1).all()
    assert after.valid_PG[changed].all()
    assert after.active_PG[changed].all()


@facts
@given(batch=batches(rewards="graded"))
def test_repairing_twice_equals_repairing_once(batch):
    once = repair_all_zero(group_state(**batch))
    twice = repair_all_zero(once)
    for field in ("rewards_PG", "structural_PG", "valid_PG", "active_PG", "anchor_slot_P"):
        assert torch.equal(getattr(twice, field), getattr(once, field))


def test_repair_takes_a_padded_slot_before_any_sampled_row():
    state = repair_all_zero(group_state([[0, 0, 0]], [[0.0, 0.1, 0.0]], [[True, True, False]], [True]))
    assert state.anchor_slot_P.tolist() == [2]


@facts
@given(
    batch=batches(rewards="graded"),
    threshold=st.sampled_from([0.0, 0.25]),
    plus=st.sampled_from([1.0, 0.3, 2.0]),
    minus=st.sampled_from([1.0, 0.3, 0.0]),
)
def test_recast_against_the_loop(batch, threshold, plus, minus):
    signal = construct("recast", **batch, config=SignalConfig(hit_above=threshold, w_plus=plus, w_minus=minus))
    columns = [batch[n].tolist() for n in ("rewards_PG", "structural_PG", "valid_PG", "has_anchor_P")]
    groups, rows = recast_loop(*columns, plus, minus, threshold)
    assert signal.advantages_PG.tolist() == [group.advantages for group in groups]
    assert signal.anchor_slot_P.tolist() == [group.slot for group in groups]
    assert signal.positive_P.tolist() == [group.positive for group in groups]
    assert signal.negative_P.tolist() == [group.negative if minus else -1 for group in groups]
    assert signal.plan.rows_N.tolist() == rows


@facts
@given(batch=batches(rewards="graded"))
def test_boundary_only_is_the_loop_without_anchors(batch):
    columns = [batch[n].tolist() for n in ("rewards_PG", "structural_PG", "valid_PG")]
    groups, rows = recast_loop(*columns, [False] * len(columns[0]))
    signal = construct("boundary_only", **batch)
    assert signal.advantages_PG.tolist() == [group.advantages for group in groups]
    assert signal.plan.rows_N.tolist() == rows
    assert not signal.repaired_P.any()


@pytest.mark.parametrize("name", ["recast", "boundary_only"])
@facts
@given(batch=batches(rewards="graded"))
def test_the_pair_is_one_hit_against_the_hardest_valid_miss(name, batch):
    signal, after = construct(name, **batch), final_state(name, batch)
    assert (signal.advantages_PG.sum(1) == 0).all()
    misses = after.valid_PG & (after.rewards_PG <= 0)
    for p, advantages in enumerate(signal.advantages_PG):
        ups, downs = (advantages > 0).nonzero()[:, 0], (advantages < 0).nonzero()[:, 0]
        if not misses[p].any() or misses[p].equal(after.valid_PG[p]):
            assert len(ups) == len(downs) == 0
            continue
        assert len(ups) == len(downs) == 1
        assert after.rewards_PG[p, ups] == after.rewards_PG[p].max()
        assert misses[p, downs]
        assert after.structural_PG[p, downs] == after.structural_PG[p][misses[p]].max()


@pytest.mark.parametrize(
    ("rewards", "valid"),
    [((1.0, 1.0), (True, True)), ((1.0, 0.0), (True, False)), ((0.0, 0.0), (True, False))],
    ids=["all hits", "the miss is padding", "the only miss stays"],
)
def test_recast_needs_a_valid_miss(rewards, valid):
    signal = construct("recast", **one_group(*rewards, valid_PG=torch.tensor([valid])))
    assert signal.learnable_P.tolist() == [rewards == (0.0, 0.0)]
    assert len(signal.plan.rows_N) == (2 if rewards == (0.0, 0.0) else 0)


def test_a_group_of_one_valid_miss_without_room_for_both_is_inactive():
    only = Constructor("one", get_constructor("recast").apply, source="", width="2", all_zero="", rollouts=False)
    signal = construct(only, **one_group(0.0))
    assert signal.repaired_P.tolist() == [True]
    assert not signal.active_PG.any()


def test_w_minus_of_zero_keeps_the_hit_alone():
    signal = construct("recast", **one_group(0.0, 1.0, 0.0), config=SignalConfig(w_minus=0.0, w_plus=0.5))
    assert signal.advantages_PG.tolist() == [[0.0, 0.5, 0.0]]
    assert signal.plan.rows_N.tolist() == [1]


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "max_rl", "pods", "boundary_only"])
def test_an_all_zero_group_gives_nothing(name):
    signal = construct(name, **one_group(0.0, 0.0, 0.0, 0.0), config=WIDTH_TWO)
    assert (signal.advantages_PG == 0).all()
    assert not signal.repaired_P.any()
    assert not signal.redraw_P.any()


def test_dapo_drops_an_all_zero_group_and_asks_for_a_redraw():
    signal = construct("dapo", tensor([[0, 0, 0], [0, 1, 0]]))
    assert signal.redraw_P.tolist() == [True, False]
    assert signal.plan.rows_N.tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("name", "slot", "positive", "others"),
    [
        ("recast", 0, 1.0, [0.0, 0.0, -1.0]),
        ("sft", 0, 1.0, [0.0, 0.0, 0.0]),
        ("sft_hard_negative", 0, 1.0, [0.0, 0.0, -1.0]),
        ("repair_only", 0, 1.5, [-0.5, -0.5, -0.5]),
        ("add_gt", 3, 1.5, [-0.5, -0.5, -0.5]),
    ],
)
def test_an_all_zero_group_gets_its_target(name, slot, positive, others):
    """With G = 4 and one hit, grpo's std (ddof 1) is 1/2: 3/4 over it is 1.5, 1/4 over it is 0.5."""
    signal = construct(name, **one_group(0.0, 0.0, 0.0, 0.0))
    assert signal.anchor_slot_P.tolist() == [slot]
    assert signal.hits_before_P.tolist() == [0]
    assert signal.hits_after_P.tolist() == [1]
    expected = torch.cat([tensor(others)[:slot], tensor([positive]), tensor(others)[slot:]])
    torch.testing.assert_close(signal.advantages_PG[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ANCHORED)
@facts
@given(batch=batches())
def test_without_an_anchor_nothing_is_injected(name, batch):
    signal = construct(name, **(batch | {"has_anchor_P": torch.zeros(len(batch["rewards_PG"]), dtype=torch.bool)}))
    assert not signal.repaired_P.any()
    assert torch.equal(signal.hits_before_P, signal.hits_after_P)
    assert not (signal.learnable_P & (signal.hits_before_P == 0)).any()
