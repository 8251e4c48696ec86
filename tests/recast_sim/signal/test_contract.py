"""What a plan means follows from the fields of the state that a constructor returns, and from nothing else."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import LOGPROB, SHIPPED, WIDTH_TWO, batches, few_facts, one_group

from recast_sim.signal import (
    Constructor,
    GroupState,
    SignalConfig,
    SignalError,
    append_row,
    boundary_contrast,
    by_level,
    construct,
    get_constructor,
    group_state,
    inject_last,
    keep_nonzero,
    keep_varied_groups,
    repair_all_zero,
    standardised,
    virtual_maximum,
)

pytestmark = pytest.mark.property


def own(apply, **changes):
    """A constructor of a user's that is in no registry."""
    return Constructor("own", apply, "test", "G", "repaired", anchors="all_zero", structural=True, **changes)


def all_zero(P=2, G=4):
    """Groups without a hit; the highest score is the last row's, the lowest the first's."""
    return {
        "rewards_PG": torch.zeros(P, G),
        "structural_PG": torch.linspace(0, 0.5, G).expand(P, G),
        "has_anchor_P": torch.ones(P, dtype=torch.bool),
    }


# Any layout


LAYOUTS = {
    "transposed": lambda t: t.T.contiguous().T,
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "fortran": lambda t: np.asfortranarray(t.numpy()),
    "reversed": lambda t: np.ascontiguousarray(t.numpy()[:, ::-1])[:, ::-1],
    "big endian": lambda t: t.numpy().astype(t.numpy().dtype.newbyteorder(">")),
    "read-only": lambda t: _read_only(t.numpy().copy()),
    "lists": lambda t: t.tolist(),
}


def _read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", SHIPPED)
@few_facts
@given(batch=batches(), layout=st.sampled_from(list(LAYOUTS.values())))
def test_any_layout_gives_what_a_contiguous_copy_gives(name, batch, layout):
    dtype = torch.float32 if layout is LAYOUTS["lists"] else torch.float64
    laid_out = {key: layout(v) if key.endswith("_PG") else v for key, v in batch.items()}
    plain = {key: v.to(dtype) if v.is_floating_point() else v for key, v in batch.items()}
    want, got = (construct(name, **given, config=WIDTH_TWO) for given in (plain, laid_out))
    assert torch.equal(got.plan.rows_N, want.plan.rows_N)
    assert torch.equal(got.plan.advantages_NL, want.plan.advantages_NL)
    assert torch.equal(got.anchor_slot_P, want.anchor_slot_P)


@pytest.mark.parametrize("step", [boundary_contrast, repair_all_zero, lambda s: keep_nonzero(boundary_contrast(s))])
def test_steps_take_states_whose_tables_a_user_laid_out(step):
    state = group_state(**one_group(0.0, 1.0, 0.0, 0.0))
    turned = replace(state, rewards_PG=state.rewards_PG.T.contiguous().T, structural_PG=state.structural_PG.T.contiguous().T)
    assert torch.equal(step(turned).advantages_PG, step(state).advantages_PG)


# What a step returns


def test_replaced_rewards_decide_the_pair():
    """A user's step behind a repair says that row 2 is a hit: the pair is row 2 against the highest miss."""

    def apply(state: GroupState) -> GroupState:
        repaired = repair_all_zero(state)
        rewards = repaired.rewards_PG.clone()
        rewards[:, 2] = 2.0
        return keep_nonzero(boundary_contrast(replace(repaired, rewards_PG=rewards, anchor_slot_P=state.anchor_slot_P)))

    signal = construct(own(apply), **all_zero())
    assert signal.positive_P.tolist() == [2, 2]
    assert signal.negative_P.tolist() == [3, 3]
    assert signal.plan.rows_N.tolist() == [2, 3, 6, 7]
    assert signal.plan.advantages_N.tolist() == [1, -1, 1, -1]
    assert not signal.plan.anchor_N.any()


def test_replaced_scores_choose_the_negative():
    def apply(state: GroupState) -> GroupState:
        repaired = repair_all_zero(state)
        return keep_nonzero(boundary_contrast(replace(repaired, structural_PG=1 - repaired.structural_PG)))

    signal = construct(own(apply), **all_zero())
    assert signal.anchor_slot_P.tolist() == [0, 0]
    assert signal.negative_P.tolist() == [1, 1]
    assert signal.plan.anchor_N.tolist() == [True, False, True, False]


@pytest.mark.parametrize("in_place", [False, True])
def test_replaced_advantages_and_active_rows_reach_the_plan(in_place):
    def apply(state: GroupState) -> GroupState:
        after = get_constructor("recast").apply(state)
        if in_place:
            state.active_PG.fill_(False)  # of this batch alone: no state shares it
            after.advantages_PG[0, 1], after.active_PG[0, 1] = -0.5, True
            return after
        advantages, active = after.advantages_PG.clone(), after.active_PG.clone()
        advantages[0, 1], active[0, 1] = -0.5, True
        return replace(after, advantages_PG=advantages, active_PG=active)

    signal = construct(own(apply), **all_zero())
    assert signal.plan.rows_N.tolist() == [0, 1, 3, 4, 7]
    assert signal.plan.advantages_N.tolist() == [1, -0.5, -1, 1, -1]
    assert signal.plan.anchor_N.tolist() == [True, False, False, True, False]


def test_a_moved_anchor_is_the_marked_row():
    def apply(state: GroupState) -> GroupState:
        after = get_constructor("repair_only").apply(state)
        return replace(after, anchor_slot_P=after.anchor_slot_P + 1, rewards_PG=after.rewards_PG.roll(1, 1))

    signal = construct(own(apply), **all_zero())
    assert signal.anchor_slot_P.tolist() == [1, 1]
    assert signal.plan.anchor_N.view(2, 4)[:, 1].all()
    assert signal.plan.anchor_N.sum() == 2


def test_a_row_appended_after_a_repair_moves_no_anchor():
    signal = construct(own(lambda s: standardised(append_row(repair_all_zero(s)))), **all_zero(P=3))
    assert signal.group_size == 5
    assert signal.plan.rows_N[signal.plan.anchor_N].tolist() == [0, 5, 10]


def test_a_group_keeps_its_first_anchor():
    state = inject_last(repair_all_zero(group_state(**all_zero())))
    assert state.anchor_slot_P.tolist() == [0, 0]
    assert state.rewards_PG.sum(1).tolist() == [1, 1]


CONTRADICTIONS = {
    "an anchor that is inactive": (
        lambda s: replace(s, anchor_slot_P=torch.tensor([0, 1])),
        "anchor_slot_P: prompt 1 names row 1, which active_PG leaves out",
    ),
    "a positive that is no hit": (
        lambda s: replace(s, positive_P=s.negative_P),
        "positive_P: prompt 0 names row 3, which is no hit",
    ),
    "a negative that is a hit": (
        lambda s: replace(s, negative_P=s.positive_P),
        "negative_P: prompt 0 names row 0, which is no miss",
    ),
    "an anchor that is no hit": (
        lambda s: replace(s, anchor_slot_P=s.negative_P),
        "anchor_slot_P: prompt 0 names row 3, which is no hit",
    ),
    "a row that is not there": (
        lambda s: replace(s, positive_P=s.positive_P + 9),
        "positive_P: prompt 0 has 9, but its rows are 0 to 3",
    ),
    "an anchor of a prompt without one": (
        lambda s: replace(s, has_anchor_P=torch.tensor([True, False])),
        "anchor_slot_P: prompt 1 names row 0, but has_anchor_P",
    ),
    "a row that is not valid": (
        lambda s: replace(s, valid_PG=s.active_PG & (torch.arange(4) != 3)),
        "negative_P: prompt 0 names row 3, which is no miss",
    ),
    "a trained row that is not valid": (
        lambda s: replace(s, valid_PG=s.active_PG, active_PG=torch.ones_like(s.active_PG)),
        "active_PG: prompt 0 keeps row 1, which is not valid",
    ),
    "no number": (lambda s: replace(s, advantages_PG=s.advantages_PG / 0), "advantages_PG: prompt 0 has .* must be finite"),
    "a table of another shape": (lambda s: replace(s, advantages_PG=s.advantages_PG[:, :2]), r"advantages_PG: shape \(2, 2\)"),
    "levels alone": (lambda s: replace(s, advantages_PGL=torch.ones(2, 4, 3)), "advantages_PG: prompt 0 differs from the mean"),
    "rows behind levels": (
        lambda s: replace(by_level(s, torch.ones(2, 4, 3)), advantages_PG=s.advantages_PG),
        "advantages_PG: prompt 0 differs from the mean",
    ),
}


@pytest.mark.parametrize(("change", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_an_error_that_names_the_prompt(change, words):
    with pytest.raises(SignalError, match=words):
        construct(own(lambda s: change(get_constructor("recast").apply(s))), **all_zero())


@pytest.mark.parametrize("name", SHIPPED)
@few_facts
@given(batch=batches(rewards="graded"))
def test_shipped_constructors_contradict_themselves_nowhere(name, batch):
    if name == "bnpo":
        batch["rewards_PG"] = batch["rewards_PG"].clamp(max=1)
    assert construct(name, **batch, config=LOGPROB).plan.advantages_NL.isfinite().all()


# Nothing is shared, nothing is hidden


@pytest.mark.parametrize("name", SHIPPED)
@few_facts
@given(batch=batches(), data=st.data())
def test_a_signal_survives_pickling_and_its_inputs_refilled(name, batch, data):
    kept = {key: value.clone() for key, value in batch.items()}
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    signal = construct(name, **batch, config=WIDTH_TWO, generator=generator)
    for value in batch.values():
        value.view(-1)[:] = 0 if value.dtype != torch.bool else False
    fresh = construct(name, **kept, config=WIDTH_TWO, generator=torch.Generator().manual_seed(generator.initial_seed()))
    for one in (signal, pickle.loads(pickle.dumps(signal))):
        assert one.regime_before == fresh.regime_before
        assert one.regime_after == fresh.regime_after
        for field in ("learnable_P", "hits_before_P", "hits_after_P", "repaired_P", "advantages_PG"):
            assert torch.equal(getattr(one, field), getattr(fresh, field)), field
        for column in fields(fresh.plan):
            a, b = getattr(one.plan, column.name), getattr(fresh.plan, column.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, column.name


@pytest.mark.parametrize("name", SHIPPED)
def test_writing_into_a_plan_leaves_the_signal_as_it_is(name):
    signal = construct(name, **one_group(0.0, 1.0, 0.0, 0.0), config=SignalConfig(pods_width=3))
    before = signal.advantages_PG.clone(), signal.active_PG.clone(), signal.anchor_slot_P.clone()
    signal.plan.rows_N[:], signal.plan.advantages_NL[:], signal.plan.anchor_N[:] = 7, 7.0, True
    assert torch.equal(signal.advantages_PG, before[0])
    assert torch.equal(signal.active_PG, before[1])
    assert torch.equal(signal.anchor_slot_P, before[2])


# Degenerate groups, the normaliser


def test_a_group_without_active_rows_gets_nothing_from_ngrpo():
    after = virtual_maximum(keep_varied_groups(group_state(**all_zero())))
    assert (after.advantages_PG == 0).all()
    assert not construct(own(lambda s: virtual_maximum(keep_varied_groups(s))), **all_zero()).learnable_P.any()


@pytest.mark.parametrize("name", ["recast", "visurf", "grpo"])
def test_the_tokens_rule_counts_tokens_where_rows_are_equally_long(name):
    config = SignalConfig(normaliser="tokens")
    plan = construct(name, **all_zero(), length_PG=3, config=config).plan
    assert plan.normaliser == 3 * len(plan.rows_N)
    with pytest.raises(SignalError, match="length_PG: prompt 0, rollout 0 is 0"):
        construct(name, **all_zero(), length_PG=0, config=config)
