"""The facts that the twelve shipped constructors must hold, on generated batches."""

import importlib.util
import itertools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from signal_oracle import grpo_group, recast_loop, repair_group

from recast_sim.signal import (
    REGIMES,
    Constructor,
    SignalConfig,
    SignalError,
    boundary_contrast,
    choose_anchor,
    construct,
    get_constructor,
    group_state,
    keep_max_variance,
    list_constructors,
    regime_codes,
    repair_all_zero,
    standardised,
)

pytestmark = pytest.mark.property

facts = settings(max_examples=25, deadline=None, database=None, derandomize=True)

TWELVE = (
    "grpo",
    "dr_grpo",
    "rloo",
    "dapo",
    "max_rl",
    "pods",
    "add_gt",
    "repair_only",
    "boundary_only",
    "recast",
    "sft",
    "sft_hard_negative",
)
CENTRED = ("grpo", "dr_grpo", "rloo", "dapo", "max_rl", "pods", "add_gt", "repair_only")
ANCHORED = ("add_gt", "repair_only", "recast", "sft", "sft_hard_negative")
WIDE = ("grpo", "dr_grpo", "rloo", "max_rl", "add_gt", "repair_only")
LOGPROB = SignalConfig(tie_rule="highest_logprob", pods_width=2)
WIDTH_TWO = SignalConfig(pods_width=2)


@st.composite
def batches(draw, *, rewards="binary", distinct_scores=False, padding="any", anchors="any", G=None, min_G=3):
    """Keyword arguments of `construct`, float64: 1 to 3 groups of the same size.

    `rewards` is binary, graded (ties likely) or distinct; `padding` is none, one (at most, a group) or any.
    """
    P, G = draw(st.integers(1, 3)), G or draw(st.integers(min_G, 6))

    def rows(*values):
        """P rows of G values, one draw a row: the digits of a number."""
        numbers = [draw(st.integers(0, len(values) ** G - 1)) for _ in range(P)]
        return [[values[number // len(values) ** g % len(values)] for g in range(G)] for number in numbers]

    def distinct(scale):
        orders = [random.Random(draw(st.integers(0, 999))).sample(range(G), G) for _ in range(P)]
        return [[scale * n for n in order] for order in orders]

    valid = [[True] * G for _ in range(P)]
    if padding == "one":
        for row in valid:
            row[draw(st.integers(0, G - 1))] = draw(st.booleans())
    elif padding == "any":
        valid = rows(True, True, True, False)
        assume(all(any(row) for row in valid))
    values = {"binary": (0.0, 1.0), "graded": (0.0, 0.25, 1.0, 2.0)}
    return {
        "rewards_PG": tensor(distinct(0.5) if rewards == "distinct" else rows(*values[rewards])),
        "structural_PG": tensor(distinct(1 / 8) if distinct_scores else rows(0.0, 0.01, 0.1, 1.0)),
        "valid_PG": torch.tensor(valid),
        "has_anchor_P": torch.tensor([anchors == "all" or draw(st.booleans()) for _ in range(P)]),
        "logprob_PG": tensor(distinct(-1.0)),
    }


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_group(*rewards, **changes):
    scores = tensor([[1.0 if r > 0 else 0.01 * g for g, r in enumerate(rewards)]])
    return {"rewards_PG": tensor([rewards]), "structural_PG": scores, "has_anchor_P": torch.tensor([True])} | changes


def final_state(name, batch, config=None):
    """The state that a constructor leaves, which shows the rewards and the scores it used."""
    return get_constructor(name).apply(group_state(**batch, config=config))


def permuted(batch, order):
    return {name: value[:, order] if value.ndim == 2 else value for name, value in batch.items()}


def mask(index_P, width):
    return torch.nn.functional.one_hot(index_P + 1, width + 1)[:, 1:].bool()


def test_the_twelve_are_shipped():
    assert {c.name for c in list_constructors()} >= set(TWELVE)


# Invariance


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


# Repair


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


# ReCast's pair


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


# Advantages of the group methods


@pytest.mark.parametrize("name", CENTRED)
@facts
@given(batch=batches(rewards="graded"))
def test_centred_constructors_sum_to_zero(name, batch):
    advantages = construct(name, **batch, config=WIDTH_TWO).advantages_PG
    assert (advantages.sum(1).abs() <= 1e-12 * (1 + advantages.abs().amax(1))).all()


@pytest.mark.parametrize("ddof", [0, 1])
@facts
@given(batch=batches(rewards="graded"), eps=st.sampled_from([1e-6, 1e-4, 0.5]))
def test_grpo_against_the_loop(ddof, batch, eps):
    columns = zip(batch["rewards_PG"].tolist(), batch["valid_PG"].tolist(), strict=True)
    expected = tensor([grpo_group(*rows, eps, ddof) for rows in columns])
    signal = construct("grpo", **batch, config=SignalConfig(std_eps=eps, std_ddof=ddof))
    torch.testing.assert_close(signal.advantages_PG, expected)


@facts
@given(batch=batches(rewards="graded"))
def test_repair_only_is_grpo_of_the_repaired_rewards(batch):
    repaired = repair_all_zero(group_state(**batch))
    columns = zip(repaired.rewards_PG.tolist(), repaired.valid_PG.tolist(), strict=True)
    signal = construct("repair_only", **batch)
    torch.testing.assert_close(signal.advantages_PG, tensor([grpo_group(*rows) for rows in columns]))
    assert torch.equal(signal.anchor_slot_P, repaired.anchor_slot_P)


@facts
@given(batch=batches(rewards="graded"))
def test_rloo_is_dr_grpo_times_n_over_n_minus_one(batch):
    n = batch["valid_PG"].sum(1, keepdim=True)
    scaled = construct("dr_grpo", **batch).advantages_PG * n / (n - 1).clamp(min=1)
    torch.testing.assert_close(construct("rloo", **batch).advantages_PG, scaled)


@facts
@given(batch=batches(rewards="graded", padding="none"))
def test_rloo_subtracts_the_mean_of_the_others_and_dr_grpo_the_mean(batch):
    rewards = batch["rewards_PG"]
    total, G = rewards.sum(1, keepdim=True), rewards.shape[1]
    torch.testing.assert_close(construct("rloo", **batch).advantages_PG, rewards - (total - rewards) / (G - 1))
    torch.testing.assert_close(construct("dr_grpo", **batch).advantages_PG, rewards - total / G)


@facts
@given(batch=batches(), eps=st.sampled_from([1e-6, 0.25]))
def test_max_rl_divides_by_the_mean_plus_eps(batch, eps):
    advantages = construct("max_rl", **batch, config=SignalConfig(mean_eps=eps)).advantages_PG
    for row, rewards, valid in zip(advantages, batch["rewards_PG"], batch["valid_PG"], strict=True):
        mean = rewards[valid].mean()
        torch.testing.assert_close(row, torch.where(valid, (rewards - mean) / (mean + eps), 0.0))


@pytest.mark.parametrize("rewards", [(-1.0, 1.0), (-1.0, 0.0)])
def test_max_rl_refuses_rewards_below_zero(rewards):
    with pytest.raises(SignalError, match=r"^rewards_PG: prompt 1"):
        construct("max_rl", tensor([[0.0, 1.0], rewards]))


@pytest.mark.parametrize(("ddof", "std"), [(0, 0.5), (1, math.sqrt(0.5))])
@pytest.mark.parametrize("eps", [1e-6, 1e-4])
def test_grpo_at_group_size_two_gives_half_a_reward_over_the_std(ddof, std, eps):
    """Two-GRPO's weight: exactly 1 up to eps with ddof 0, exactly sqrt(1/2) up to eps with ddof 1."""
    config = SignalConfig(std_ddof=ddof, std_eps=eps)
    advantages = construct("grpo", tensor([[1, 0], [0, 1], [0, 0], [1, 1]]), config=config).advantages_PG
    a = 0.5 / (std + eps)
    torch.testing.assert_close(advantages, tensor([[a, -a], [-a, a], [0, 0], [0, 0]]), rtol=1e-14, atol=0)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 / 7])
@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "max_rl", "dapo"])
def test_equal_rewards_give_exactly_zero_whatever_the_rounding(name, value):
    signal = construct(name, torch.full((2, 7), value))
    assert (signal.advantages_PG == 0).all()
    assert not signal.learnable_P.any()


@pytest.mark.parametrize(("singleton", "expected"), [("zero", 0.0), ("raw", 0.75)])
def test_the_only_valid_rollout_of_a_group(singleton, expected):
    batch = {"rewards_PG": tensor([[0.75, 9.0]]), "valid_PG": torch.tensor([[True, False]])}
    signal = construct("grpo", **batch, config=SignalConfig(singleton=singleton))
    assert signal.advantages_PG.tolist() == [[expected, 0.0]]


# All-zero groups, as the table says


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


# Which rows are kept


@pytest.mark.parametrize("name", WIDE)
@facts
@given(batch=batches(rewards="graded"))
def test_wide_constructors_keep_every_valid_row(name, batch):
    signal = construct(name, **batch)
    assert torch.equal(signal.active_PG, batch["valid_PG"] | mask(signal.anchor_slot_P, batch["valid_PG"].shape[1]))


@facts
@given(batch=batches(rewards="graded"))
def test_dapo_keeps_whole_groups_with_variance_and_marks_the_others(batch):
    signal = construct("dapo", **batch)
    varied = torch.tensor([len(r[v].unique()) > 1 for r, v in zip(batch["rewards_PG"], batch["valid_PG"], strict=True)])
    assert torch.equal(signal.redraw_P, ~varied)
    assert torch.equal(signal.active_PG, batch["valid_PG"] & varied[:, None])
    assert torch.equal(signal.advantages_PG, construct("grpo", **batch).advantages_PG)


@pytest.mark.parametrize("name", [n for n in TWELVE if n != "dapo"])
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


@pytest.mark.parametrize(("name", "most"), [("recast", 2), ("boundary_only", 2), ("sft_hard_negative", 2), ("sft", 1)])
@facts
@given(batch=batches(rewards="graded"))
def test_narrow_constructors_keep_exactly_their_non_zero_rows(name, most, batch):
    signal = construct(name, **batch)
    assert torch.equal(signal.active_PG, signal.advantages_PG != 0)
    assert signal.active_PG.sum(1).amax() <= most


# The update plan


@pytest.mark.parametrize("name", TWELVE)
@facts
@given(batch=batches(rewards="graded"))
def test_the_plan_lists_the_active_rows_in_order(name, batch):
    signal = construct(name, **batch, config=WIDTH_TWO)
    plan, G = signal.plan, batch["rewards_PG"].shape[1]
    assert plan.rows_N.tolist() == [p * G + g for p, g in signal.active_PG.nonzero().tolist()]
    assert plan.advantages_N.tolist() == signal.advantages_PG[signal.active_PG].tolist()
    assert torch.equal(plan.anchor_N, mask(signal.anchor_slot_P, G)[signal.active_PG])
    assert (plan.weights_N == 1).all()
    assert plan.normaliser == max(1, len(plan.rows_N))
    assert torch.equal(signal.learnable_P, (signal.advantages_PG != 0).any(1))
    torch.testing.assert_close(plan.coefficients_N, plan.advantages_N / plan.normaliser)


@pytest.mark.parametrize(("rule", "expected"), [("groups", 2), ("active_rows", 4), ("all_rows", 6), ("tokens", 18)])
def test_the_normaliser_rules(rule, expected):
    """Two groups of three, two rows kept of each: rows 0, 2, 3, 4 with 3 + 5 + 6 + 4 tokens."""
    plan = construct(
        "recast",
        tensor([[0, 0, 0], [1, 0, 0]]),
        tensor([[0, 0, 0.1], [1, 0.1, 0]]),
        has_anchor_P=[True, True],
        length_PG=torch.tensor([[3, 50, 5], [6, 4, 50]]),
        config=SignalConfig(normaliser=rule, w_minus=0.5),
    ).plan
    assert plan.rows_N.tolist() == [0, 2, 3, 4]
    assert plan.normaliser == expected
    torch.testing.assert_close(plan.coefficients_N, tensor([1, -0.5, 1, -0.5]) / expected)


@pytest.mark.parametrize("rule", ["groups", "active_rows", "all_rows", "tokens"])
def test_the_normaliser_is_never_below_one(rule):
    config = SignalConfig(normaliser=rule)
    plan = construct("boundary_only", [[0, 0]], [[0, 0]], length_PG=torch.ones(1, 2), config=config).plan
    assert plan.normaliser == {"all_rows": 2}.get(rule, 1)
    assert plan.coefficients_N.shape == (0,)


def weights_of_anchors(rule, logprobs, **fields):
    """Weights of the two rows (anchor, negative) of repaired groups, one group for each log-probability."""
    P = len(logprobs)
    plan = construct(
        "recast",
        torch.zeros(P, 2, dtype=torch.float64),
        tensor([[0.0, 0.1]] * P),
        has_anchor_P=[True] * P,
        anchor_logprob_P=logprobs,
        config=SignalConfig(anchor_weighting=rule, **fields),
    ).plan
    assert plan.anchor_N.tolist() == [True, False] * P
    return plan.weights_N.reshape(P, 2)


@facts
@given(logprobs=st.lists(st.floats(-30, 0), min_size=1, max_size=5), floor=st.sampled_from([0.1, 0.5, 1.0]))
def test_clipped_anchor_weights_are_the_probability_bounded_below(logprobs, floor):
    weights = weights_of_anchors("clipped", tensor(logprobs), anchor_floor=floor)
    torch.testing.assert_close(weights[:, 0], tensor([max(floor, math.exp(x)) for x in logprobs]))
    assert (weights[:, 1] == 1).all()


@facts
@given(logprobs=st.lists(st.floats(-30, 0), min_size=1, max_size=5), gamma=st.sampled_from([0.1, 0.01, 1.0]))
def test_luffy_anchor_weights_are_the_gradient_of_the_shaped_ratio(logprobs, gamma):
    leaf = tensor(logprobs).requires_grad_()
    shaped = leaf.exp() / (leaf.exp() + gamma)
    (expected,) = torch.autograd.grad(shaped.sum(), leaf)
    weights = weights_of_anchors("luffy", tensor(logprobs), luffy_gamma=gamma)
    torch.testing.assert_close(weights[:, 0], expected)
    assert (weights[:, 1] == 1).all()


def test_annealed_anchor_weights_fade_with_the_natural_hits():
    """One group of four has a natural hit: the three anchors weigh 3/4, every sampled row 1, and eight rows are kept."""
    rewards = tensor([[0, 0], [0, 1], [0, 0], [0, 0]])
    config = SignalConfig(anchor_weighting="annealed")
    plan = construct("repair_only", rewards, torch.zeros(4, 2), has_anchor_P=[True] * 4, config=config).plan
    assert plan.weights_N.tolist() == [0.75, 1, 1, 1, 0.75, 1, 0.75, 1]
    coefficients = tensor([0.75, -1, -1, 1, 0.75, -1, 0.75, -1]) * math.sqrt(0.5) / 8
    torch.testing.assert_close(plan.coefficients_N, coefficients, rtol=1e-5, atol=0)


@pytest.mark.parametrize("rule", ["ratio_one", "clipped", "luffy", "annealed"])
def test_sampled_rows_weigh_one_and_anchors_need_no_log_probs_where_there_are_none(rule):
    config = SignalConfig(anchor_weighting=rule)
    plan = construct("recast", tensor([[1, 0]]), torch.zeros(1, 2), has_anchor_P=[True], config=config).plan
    assert plan.weights_N.tolist() == [1, 1]


# Regimes


@facts
@given(batch=batches(rewards="graded"), threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_regimes_partition_the_groups(batch, threshold):
    signal = construct("recast", **batch, config=SignalConfig(hit_above=threshold))
    after = final_state("recast", batch, SignalConfig(hit_above=threshold))
    stages = [(signal.regime_before, batch["rewards_PG"], batch["valid_PG"], signal.hits_before_P)]
    stages.append((signal.regime_after, after.rewards_PG, after.valid_PG, signal.hits_after_P))
    for regime, rewards, valid, hits_P in stages:
        names = []
        for row, used, hits in zip(rewards, valid, hits_P.tolist(), strict=True):
            n = int(used.sum())
            assert hits == sum(r > threshold for r in row[used].tolist())
            names.append("all_zero" if hits == 0 else "all_hit" if hits == n else "single_hit" if hits == 1 else "multi_hit")
        shares = {name: names.count(name) / len(names) for name in REGIMES}
        assert {name: getattr(regime, name) for name in REGIMES} == pytest.approx(shares)
        assert regime.learnable == pytest.approx(shares["single_hit"] + shares["multi_hit"])
        assert sum(getattr(regime, name) for name in REGIMES) == pytest.approx(1)


@pytest.mark.parametrize(
    ("hits", "valid", "regime"),
    [(0, 4, 0), (1, 4, 1), (2, 4, 2), (3, 4, 2), (4, 4, 3), (1, 1, 3), (0, 1, 0), (2, 2, 3), (1, 2, 1)],
)
def test_regime_of_a_group(hits, valid, regime):
    assert regime_codes(torch.tensor([hits]), torch.tensor([valid])).tolist() == [regime]


@facts
@given(batch=batches())
def test_with_binary_rewards_grpo_learns_exactly_from_the_naturally_learnable_groups(batch):
    signal = construct("grpo", **batch)
    n = batch["valid_PG"].sum(1)
    assert torch.equal(signal.learnable_P, (signal.hits_before_P > 0) & (signal.hits_before_P < n))
    assert signal.regime_before.learnable == pytest.approx(signal.learnable_P.double().mean().item())
    assert signal.regime_after == signal.regime_before


# Tie rules


def tied(rule, seed=None, logprob=(-3.0, -1.0, -2.0, -4.0)):
    """Two hits (rows 0, 1) and two equally hard misses (rows 2, 3)."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batch = {"rewards_PG": tensor([[1, 1, 0, 0]]), "structural_PG": tensor([[1, 1, 0.1, 0.1]])}
    config = SignalConfig(tie_rule=rule)
    signal = construct("boundary_only", **batch, logprob_PG=tensor([logprob]), config=config, generator=generator)
    return signal.positive_P.item(), signal.negative_P.item()


def test_tie_rule_first_takes_the_first_row():
    assert tied("first") == (0, 2)


def test_tie_rule_highest_logprob_takes_the_likeliest_row():
    assert tied("highest_logprob") == (1, 2)
    assert tied("highest_logprob", logprob=(-1.0, -3.0, -4.0, -2.0)) == (0, 3)


def test_tie_rule_random_reaches_every_tied_row_and_repeats_with_its_generator():
    picks = [tied("random", seed) for seed in range(40)]
    assert set(picks) == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert picks == [tied("random", seed) for seed in range(40)]


@pytest.mark.parametrize("rule", ["first", "random", "highest_logprob"])
@facts
@given(batch=batches(distinct_scores=True), seed=st.integers(0, 2**20))
def test_tie_rules_only_break_ties(rule, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    signal = construct("recast", **batch, config=SignalConfig(tie_rule=rule), generator=generator)
    after = final_state("recast", batch)
    for p, (g, slot) in enumerate(zip(signal.negative_P.tolist(), signal.anchor_slot_P.tolist(), strict=True)):
        if g >= 0:
            misses = batch["valid_PG"][p] & (batch["rewards_PG"][p] <= 0)
            misses[slot] &= slot < 0
            assert batch["structural_PG"][p, g] == batch["structural_PG"][p][misses].max()
    if batch["valid_PG"].all():
        assert torch.equal(signal.anchor_slot_P, after.anchor_slot_P)


TARGETS = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])


@pytest.mark.parametrize(("rule", "expected"), [("first", [1, -1, 0]), ("most_likely", [2, -1, 0])])
def test_choose_anchor(rule, expected):
    logprob = tensor([[-0.1, -2.0, -1.0], [-1.0, -1.0, -1.0], [-1.0, -0.5, -2.0]])
    assert choose_anchor(TARGETS, rule, logprob).tolist() == expected


def test_choose_anchor_at_random_takes_every_real_target_and_no_other():
    picks = [choose_anchor(TARGETS, "random", generator=torch.Generator().manual_seed(s)).tolist() for s in range(40)]
    assert {tuple(p) for p in picks} == {(a, -1, b) for a in (1, 2) for b in (0, 2)}


# Steps compose


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


# The benchmark

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "construction.py"


def test_the_benchmark_prints_one_json_object_and_passes_an_easy_target():
    small = [sys.executable, str(BENCHMARK), "--json", "--groups", "64", "--repeats", "3", "--target", "2"]
    done = subprocess.run(
        small, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(BENCHMARK.parents[1])}
    )
    result = json.loads(done.stdout)
    assert {"groups", "group_size", "oracle_ms", "construct_ms", "ratio", "target", "met", "torch", "threads"} <= set(result)
    assert (result["groups"], result["group_size"], result["target"], result["met"]) == (64, 32, 2.0, True)
    assert result["ratio"] == pytest.approx(result["oracle_ms"] / result["construct_ms"])


def test_the_benchmark_fails_a_target_out_of_reach(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("benchmark_of_signal", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = str(torch.get_num_threads())
    assert module.main(["--groups", "8", "--repeats", "1", "--target", "1e9", "--threads", threads]) == 1
    assert "missed" in capsys.readouterr().out
