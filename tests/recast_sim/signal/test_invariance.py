"""Invariance: what must not change a signal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import (
    BATCHWISE,
    BY_SLOT,
    LOGPROB,
    SAME_ROWS,
    SHIPPED,
    WIDTH_TWO,
    batches,
    facts,
    final_state,
    mask,
    permuted,
    tensor,
)

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

ROWS = ("rewards_PG", "structural_PG", "logprob_PG", "reference_logprob_PG")


def test_the_table_is_shipped():
    assert {c.name for c in list_constructors()} == set(SHIPPED)


@pytest.mark.parametrize("name", [n for n in SAME_ROWS if n not in BY_SLOT])
@facts
@given(data=st.data())
def test_permuting_rollouts_permutes_the_signal(name, data):
    # rows that are not valid are all alike, so more than one of them would be a tie that no rule can break
    kind = {"pods": "distinct", "bnpo": "binary"}.get(name, "graded")
    batch = data.draw(batches(rewards=kind, padding="one"))
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


@facts
@given(batch=batches(rewards="graded"), data=st.data())
def test_visurf_is_equivariant_in_the_sampled_rows(batch, data):
    G = batch["rewards_PG"].shape[1]
    order = torch.tensor(data.draw(st.permutations(range(G))))
    moved, plain = construct("visurf", **permuted(batch, order)), construct("visurf", **batch)
    torch.testing.assert_close(moved.advantages_PG, plain.advantages_PG[:, [*order.tolist(), G]])


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in BATCHWISE])
@facts
@given(batch=batches())
def test_a_group_does_not_depend_on_its_neighbours(name, batch):
    together = construct(name, **batch, config=WIDTH_TWO)
    for p in range(len(batch["rewards_PG"])):
        alone = construct(name, **{key: value[p : p + 1] for key, value in batch.items()}, config=WIDTH_TWO)
        assert torch.equal(alone.advantages_PG[0], together.advantages_PG[p])
        assert torch.equal(alone.active_PG[0], together.active_PG[p])


@pytest.mark.parametrize("name", BATCHWISE)
def test_a_batchwise_constructor_depends_on_the_other_groups(name):
    rewards = tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    with_zero = construct(name, rewards, baseline_P=[0.5, 0.25, 0.0]).advantages_PG[:2]
    without = construct(name, rewards[:2], baseline_P=[0.5, 0.25]).advantages_PG
    assert ((with_zero - without).abs() > 1e-3).any(1).all()


@pytest.mark.parametrize("name", SAME_ROWS)
@facts
@given(batch=batches())
def test_task_rewards_change_only_where_an_anchor_stands(name, batch):
    after = final_state(name, batch, WIDTH_TWO)
    anchor = mask(after.anchor_slot_P, after.rewards_PG.shape[1])
    assert (after.rewards_PG[anchor] == 1).all()
    sampled = batch["valid_PG"] & ~anchor
    assert torch.equal(after.rewards_PG[sampled], batch["rewards_PG"][sampled])


@pytest.mark.parametrize("name", [n for n in SHIPPED if not get_constructor(n).structural and get_constructor(n).rollouts])
@facts
@given(batch=batches())
def test_constructors_that_do_not_order_by_scores_ignore_them(name, batch):
    blind = construct(name, **(batch | {"structural_PG": None}), config=WIDTH_TWO)
    assert torch.equal(blind.advantages_PG, construct(name, **batch, config=WIDTH_TWO).advantages_PG)


@pytest.mark.parametrize("name", SHIPPED)
@facts
@given(batch=batches(), junk=st.sampled_from([math.nan, math.inf, -7.0, 0.5]))
def test_what_a_padded_row_holds_is_never_read(name, batch, junk):
    holes = ~batch["valid_PG"]
    other = {n: batch[n].masked_fill(holes, junk) for n in ROWS}
    plain, filled = (construct(name, **b, config=LOGPROB) for b in (batch, batch | other))
    assert torch.equal(plain.advantages_PG, filled.advantages_PG)
    assert torch.equal(plain.plan.rows_N, filled.plan.rows_N)


@pytest.mark.parametrize("name", SAME_ROWS)
@facts
@given(batch=batches())
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
@given(batch=batches())
def test_steps_never_write_into_their_state(batch):
    state = group_state(**batch, config=WIDTH_TWO)
    copies = {name: value.clone() for name, value in vars(state).items() if isinstance(value, torch.Tensor)}
    for step in (repair_all_zero, boundary_contrast, standardised):
        step(state)
    for constructor in list_constructors():
        constructor.apply(state)
    assert all(torch.equal(getattr(state, name), value) for name, value in copies.items())
