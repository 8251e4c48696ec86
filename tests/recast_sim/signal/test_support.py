"""Which rows the constructors keep."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import SHIPPED, WIDE, WIDTH_TWO, batches, facts, mask, tensor
from signal_oracle import grpo_group

from recast_sim.signal import (
    SignalConfig,
    construct,
)

pytestmark = pytest.mark.property


@pytest.mark.parametrize("name", WIDE)
@facts
@given(batch=batches(rewards="graded"))
def test_wide_constructors_keep_every_valid_row(name, batch):
    signal = construct(name, **batch, config=WIDTH_TWO)
    assert torch.equal(signal.active_PG, batch["valid_PG"] | mask(signal.anchor_slot_P, batch["valid_PG"].shape[1]))


@facts
@given(batch=batches(rewards="graded"))
def test_dapo_keeps_whole_groups_with_variance_and_marks_the_others(batch):
    signal = construct("dapo", **batch)
    varied = torch.tensor([len(r[v].unique()) > 1 for r, v in zip(batch["rewards_PG"], batch["valid_PG"], strict=True)])
    assert torch.equal(signal.redraw_P, ~varied)
    assert torch.equal(signal.active_PG, batch["valid_PG"] & varied[:, None])
    assert torch.equal(signal.advantages_PG, construct("grpo", **batch).advantages_PG)


@pytest.mark.parametrize("name", [n for n in SHIPPED if n != "dapo"])
@facts
@given(batch=batches())
def test_only_dapo_asks_for_redraws(name, batch):
    assert not construct(name, **batch, config=WIDTH_TWO).redraw_P.any()


@pytest.mark.parametrize("width", [2, 3, 4])
@facts
@given(batch=batches(rewards="graded", min_G=5))
def test_pods_keeps_the_subset_of_largest_variance_and_standardises_it(width, batch):
    signal = construct("pods", **batch, config=SignalConfig(pods_width=width))
    for row, kept, rewards, valid in zip(
        signal.advantages_PG, signal.active_PG, batch["rewards_PG"], batch["valid_PG"], strict=True
    ):
        size = min(width, int(valid.sum()))
        best = max(torch.stack(s).var(correction=0) for s in itertools.combinations(rewards[valid], size))
        assert kept.sum() == size
        torch.testing.assert_close(rewards[kept].var(correction=0), best)
        torch.testing.assert_close(row, tensor(grpo_group(rewards.tolist(), kept.tolist())))


def test_pods_finds_the_variance_of_rewards_far_from_zero():
    signal = construct("pods", torch.tensor([[10000.0, 10001, 10003, 10002]]), config=WIDTH_TWO)
    assert signal.active_PG.tolist() == [[True, False, True, False]]


def test_pods_takes_the_first_low_and_the_last_high_of_equal_rewards():
    signal = construct("pods", tensor([[1, 1, 1, 0, 0, 0]]), config=WIDTH_TWO)
    assert signal.active_PG.tolist() == [[False, False, True, True, False, False]]


@facts
@given(batch=batches(rewards="graded"), shift=st.sampled_from([-3.0, 0.5]))
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "dapo"])
def test_centred_constructors_do_not_see_a_shift_of_all_rewards(name, batch, shift):
    moved = {**batch, "rewards_PG": batch["rewards_PG"] + shift}
    torch.testing.assert_close(construct(name, **moved).advantages_PG, construct(name, **batch).advantages_PG)


@facts
@given(batch=batches())
def test_add_gt_puts_the_target_in_the_last_slot_of_every_group_with_an_anchor(batch):
    signal = construct("add_gt", **batch)
    last = batch["rewards_PG"].shape[1] - 1
    assert torch.equal(signal.anchor_slot_P, torch.where(batch["has_anchor_P"], last, -1))
    assert (signal.hits_after_P[batch["has_anchor_P"]] >= 1).all()


@facts
@given(batch=batches(), plus=st.sampled_from([1.0, 0.3]))
def test_sft_keeps_the_anchor_alone(batch, plus):
    signal = construct("sft", **batch, config=SignalConfig(w_plus=plus))
    anchor = mask(signal.anchor_slot_P, batch["rewards_PG"].shape[1])
    assert torch.equal(signal.advantages_PG, anchor.double() * plus)
    assert torch.equal(signal.active_PG, anchor)
    assert torch.equal(signal.repaired_P, batch["has_anchor_P"])


def test_sft_works_on_groups_of_one():
    assert construct("sft", tensor([[0.0], [1.0]]), has_anchor_P=[True, True]).plan.rows_N.tolist() == [0, 1]


@facts
@given(batch=batches(anchors="all"), plus=st.sampled_from([1.0, 2.0]), minus=st.sampled_from([1.0, 0.3]))
def test_recast_is_sft_with_a_hard_negative_where_a_prompt_has_one_target(batch, plus, minus):
    """Every hit and every anchor is then the target itself: same target coefficient, same negative row, same coefficient.

    It holds in every group that keeps a valid miss; without one recast gives nothing and supervision its target.
    """
    config = SignalConfig(w_plus=plus, w_minus=minus)
    ours, control = (construct(name, **batch, config=config) for name in ("recast", "sft_hard_negative"))
    assert torch.equal(ours.negative_P[ours.learnable_P], control.negative_P[ours.learnable_P])
    hits = batch["valid_PG"] & (batch["rewards_PG"] > 0)
    for p, learns in enumerate(ours.learnable_P):
        assert learns == (control.negative_P[p] >= 0)
        events = [
            sorted((hits[p, g].item() or g == s.anchor_slot_P[p].item(), s.advantages_PG[p, g].item()) for g in active)
            for s in (ours, control)
            for active in [s.active_PG[p].nonzero()[:, 0].tolist()]
        ]
        assert events[0] == ([(False, -minus), (True, plus)] if learns else [])
        assert events[1] == ([(False, -minus), (True, plus)] if learns else [(True, plus)])


@pytest.mark.parametrize(
    ("name", "most"),
    [
        *(("recast", 2), ("boundary_only", 2), ("sft_hard_negative", 2), ("sft", 1), ("tempered_anchor", 1), ("hybrid", 2)),
        *(("near_miss", 2), ("care", 5), ("s_dpo", 4)),
    ],
)
@facts
@given(batch=batches(rewards="graded"))
def test_narrow_constructors_keep_exactly_their_non_zero_rows(name, most, batch):
    signal = construct(name, **batch)
    assert torch.equal(signal.active_PG, signal.advantages_PG != 0)
    assert signal.active_PG.sum(1).amax() <= most
