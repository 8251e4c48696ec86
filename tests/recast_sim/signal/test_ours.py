"""Our own constructors: tempered_anchor, hybrid, grpo_anchor, rloo_anchor, near_miss."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import batches, facts, mask

from recast_sim.signal import SignalConfig, construct, group_state, rescue_with_anchor

pytestmark = pytest.mark.property


def all_zero(batch):
    """Groups without a hit that have an anchor to be rescued by."""
    return ~(batch["valid_PG"] & (batch["rewards_PG"] > 0)).any(1) & batch["has_anchor_P"]


@facts
@given(batch=batches(rewards="graded"), power=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@pytest.mark.parametrize("rule", ["ratio_one", "clipped", "luffy", "annealed"])
def test_tempered_anchor_is_sft_with_a_power_of_the_anchors_probability(rule, batch, power):
    signal = construct("tempered_anchor", **batch, config=SignalConfig(anchor_power=power, anchor_weighting=rule))
    plain = construct("sft", **batch)
    assert torch.equal(signal.advantages_PG, plain.advantages_PG)
    assert torch.equal(signal.plan.rows_N, plain.plan.rows_N)
    probability = batch["anchor_logprob_P"][batch["has_anchor_P"]].exp()
    torch.testing.assert_close(signal.plan.weights_N, probability**power)


def test_tempered_anchor_at_power_0_is_sft_even_for_an_impossible_target():
    batch = {"rewards_PG": torch.zeros(1, 2), "has_anchor_P": [True], "anchor_logprob_P": [-torch.inf]}
    for power, weight in ((0.0, 1.0), (1.0, 0.0)):
        assert construct("tempered_anchor", **batch, config=SignalConfig(anchor_power=power)).plan.weights_N.tolist() == [
            weight
        ]


def test_the_tempered_factor_carries_no_gradient():
    logprob = torch.tensor([-1.0], requires_grad=True)
    plan = construct("tempered_anchor", torch.zeros(1, 1), has_anchor_P=[True], anchor_logprob_P=logprob).plan
    assert not plan.weights_N.requires_grad


@pytest.mark.parametrize(("name", "base"), [("grpo_anchor", "grpo"), ("rloo_anchor", "rloo"), ("hybrid", "boundary_only")])
@facts
@given(batch=batches(rewards="graded"), weight=st.sampled_from([0.3, 1.0]))
def test_groups_with_a_hit_keep_their_numbers_and_the_others_get_the_anchor_alone(name, base, batch, weight):
    config = SignalConfig(w_anchor=weight)
    signal, plain = construct(name, **batch, config=config), construct(base, **batch, config=config)
    rescued = all_zero(batch)
    anchor = mask(signal.anchor_slot_P, signal.group_size)
    assert torch.equal(signal.repaired_P, rescued)
    assert torch.equal(signal.advantages_PG[~rescued], plain.advantages_PG[~rescued])
    assert torch.equal(signal.active_PG[~rescued], plain.active_PG[~rescued])
    assert torch.equal(signal.advantages_PG[rescued], weight * anchor[rescued].double())
    assert torch.equal(signal.active_PG[rescued], anchor[rescued])
    assert torch.equal(signal.positive_P[rescued], signal.anchor_slot_P[rescued])
    assert (signal.negative_P[rescued] == -1).all()


def test_rescue_takes_back_a_negative_that_an_earlier_step_named():
    state = dataclasses.replace(
        group_state([[0.0, 0.0], [1.0, 0.0]], has_anchor_P=[True, True]), negative_P=torch.tensor([1, 1])
    )
    assert rescue_with_anchor(state).negative_P.tolist() == [-1, 1]


@facts
@given(batch=batches(distinct_scores=True))
def test_rescue_places_the_anchor_blind_to_scores(batch):
    other = batch | {"structural_PG": 1 - batch["structural_PG"]}
    for name in ("grpo_anchor", "rloo_anchor"):
        assert torch.equal(construct(name, **batch).anchor_slot_P, construct(name, **other).anchor_slot_P)


@facts
@given(batch=batches(rewards="graded"), minus=st.sampled_from([1.0, 0.5, 0.0]))
def test_near_miss_is_recast_with_a_lighter_negative(batch, minus):
    config = SignalConfig(w_minus=minus)
    signal, plain = construct("near_miss", **batch, config=config), construct("recast", **batch, config=config)
    positive = plain.advantages_PG > 0
    assert torch.equal(signal.advantages_PG[positive], plain.advantages_PG[positive])
    for p, g in enumerate(plain.negative_P.tolist()):
        if g < 0:
            continue
        score = batch["structural_PG"][p, g]
        torch.testing.assert_close(signal.advantages_PG[p, g], -minus * (1 - score))
        assert signal.negative_P[p].item() == (g if score < 1 else -1)
        assert signal.active_PG[p, g] == (score < 1)
    assert torch.equal(signal.active_PG, signal.advantages_PG != 0)
    assert torch.equal(signal.learnable_P, plain.learnable_P)
