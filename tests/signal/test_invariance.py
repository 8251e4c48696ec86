"""Invariance: what must not change a signal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import LOGPROB, TWELVE, WIDTH_TWO, batches, facts, final_state, mask, permuted

from recast_sim.signal import (
    Constructor,
    SignalConfig,
    boundary_contrast,
    construct,
    get_constructor,
    group_state,
    keep_max_variance,
    list_constructors,
    repair_all_zero,
    standardised,
)

pytestmark = pytest.mark.property


def test_the_twelve_are_shipped():
    assert {c.name for c in list_constructors()} >= set(TWELVE)


@pytest.mark.parametrize("name", [n for n in TWELVE if n != "add_gt"])
@facts
@given(data=st.data())
def test_permuting_rollouts_permutes_the_signal(name, data):
    # rows that are not valid are all alike, so more than one of them would be a tie that no rule can break
    batch = data.draw(batches(rewards="distinct" if name == "pods" else "graded", padding="one"))
    order = torch.tensor(data.draw(st.permutations(range(batch["rewards_PG"].shape[1]))))
    plain, moved = construct(name, **batch, config=LOGPROB), construct(name, **permuted(batch, order), config=LOGPROB)
    torch.testing.assert_close(moved.advantages_PG, plain.advantages_PG[:, order])
    assert torch.equal(moved.active_PG, plain.active_PG[:, order])
    width = len(order)
    for field in ("anchor_slot_P", "positive_P", "negative_P"):
        assert torch.equal(mask(getattr(moved, field), width), mask(getattr(plain, field), width)[:, order])


@facts
@given(batch=batches(distinct_scores=True, padding="none"), data=st.data())
def test_recast_by_the_first_row_rule_is_equivariant_with_distinct_scores_and_at_most_one_hit(batch, data):
    first_hit = batch["rewards_PG"].cumsum(1) == 1
    batch["rewards_PG"] = batch["rewards_PG"] * first_hit
    order = torch.tensor(data.draw(st.permutations(range(batch["rewards_PG"].shape[1]))))
    moved = construct("recast", **permuted(batch, order))
    assert torch.equal(moved.advantages_PG, construct("recast", **batch).advantages_PG[:, order])


@facts
@given(batch=batches(rewards="graded"), data=st.data())
def test_add_gt_is_equivariant_in_the_rows_before_the_last(batch, data):
    G = batch["rewards_PG"].shape[1]
    order = torch.tensor([*data.draw(st.permutations(range(G - 1))), G - 1])
    moved = construct("add_gt", **permuted(batch, order))
    torch.testing.assert_close(moved.advantages_PG, construct("add_gt", **batch).advantages_PG[:, order])


@pytest.mark.parametrize("name", TWELVE)
@facts
@given(batch=batches())
def test_a_group_does_not_depend_on_its_neighbours(name, batch):
    together = construct(name, **batch, config=WIDTH_TWO)
    for p in range(len(batch["rewards_PG"])):
        alone = construct(name, **{key: value[p : p + 1] for key, value in batch.items()}, config=WIDTH_TWO)
        assert torch.equal(alone.advantages_PG[0], together.advantages_PG[p])
        assert torch.equal(alone.active_PG[0], together.active_PG[p])


@pytest.mark.parametrize("name", TWELVE)
@facts
@given(batch=batches(rewards="graded"))
def test_task_rewards_change_only_where_an_anchor_stands(name, batch):
    after = final_state(name, batch, WIDTH_TWO)
    anchor = mask(after.anchor_slot_P, after.rewards_PG.shape[1])
    assert (after.rewards_PG[anchor] == 1).all()
    sampled = batch["valid_PG"] & ~anchor
    assert torch.equal(after.rewards_PG[sampled], batch["rewards_PG"][sampled])


@pytest.mark.parametrize("name", [n for n in TWELVE if not get_constructor(n).structural and n != "sft"])
@facts
@given(batch=batches(rewards="graded"))
def test_constructors_that_do_not_order_by_scores_ignore_them(name, batch):
    blind = construct(name, **(batch | {"structural_PG": None}), config=WIDTH_TWO)
    assert torch.equal(blind.advantages_PG, construct(name, **batch, config=WIDTH_TWO).advantages_PG)


@pytest.mark.parametrize("name", TWELVE)
@facts
@given(batch=batches(rewards="graded"), junk=st.sampled_from([math.nan, math.inf, -7.0, 0.5]))
def test_what_a_padded_row_holds_is_never_read(name, batch, junk):
    holes = ~batch["valid_PG"]
    other = {n: batch[n].masked_fill(holes, junk) for n in ("rewards_PG", "structural_PG", "logprob_PG")}
    plain, filled = (construct(name, **b, config=LOGPROB) for b in (batch, batch | other))
    assert torch.equal(plain.advantages_PG, filled.advantages_PG)
    assert torch.equal(plain.plan.rows_N, filled.plan.rows_N)


@pytest.mark.parametrize("name", TWELVE)
@facts
@given(batch=batches(rewards="graded"))
def test_padded_rows_are_neither_active_nor_picked_unless_an_anchor_was_put_there(name, batch):
    signal = construct(name, **batch, config=WIDTH_TWO)
    G = batch["rewards_PG"].shape[1]
    usable = batch["valid_PG"] | mask(signal.anchor_slot_P, G)
    assert not (signal.active_PG & ~usable).any()
    assert (signal.advantages_PG[~signal.active_PG] == 0).all()
    for picked_P in (signal.positive_P, signal.negative_P):
        assert not (mask(picked_P, G) & ~usable).any()


@facts
@given(batch=batches(min_G=4, padding="none"))
def test_pods_after_repair_is_one_line(batch):
    line = Constructor(
        "pods_after_repair",
        lambda state: standardised(keep_max_variance(repair_all_zero(state))),
        source="test",
        width="pods_width",
        all_zero="repaired",
        anchors="all_zero",
    )
    signal = construct(line, **batch, config=SignalConfig(pods_width=3))
    assert (signal.active_PG.sum(1) == 3).all()
    repaired = signal.repaired_P
    assert torch.equal(repaired, batch["has_anchor_P"] & (batch["rewards_PG"] == 0).all(1))
    assert signal.active_PG[repaired].gather(1, signal.anchor_slot_P[repaired, None]).all()
    assert signal.learnable_P[repaired].all()


@facts
@given(batch=batches(rewards="graded"))
def test_steps_never_write_into_their_state(batch):
    state = group_state(**batch)
    copies = {name: value.clone() for name, value in vars(state).items() if isinstance(value, torch.Tensor)}
    for step in (repair_all_zero, boundary_contrast, standardised):
        step(state)
    for constructor in list_constructors():
        if constructor.name in TWELVE and constructor.name != "pods":
            constructor.apply(state)
    assert all(torch.equal(getattr(state, name), value) for name, value in copies.items())
