"""The update plan: rows, weights, normaliser."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import OWN_ANCHOR_WEIGHT, SHIPPED, WIDTH_TWO, batches, facts, mask, tensor

from recast_sim.signal import (
    SignalConfig,
    construct,
)

pytestmark = pytest.mark.property


@pytest.mark.parametrize("name", SHIPPED)
@facts
@given(batch=batches())
def test_the_plan_lists_the_active_rows_in_order(name, batch):
    signal = construct(name, **batch, config=WIDTH_TWO)
    plan, G = signal.plan, signal.group_size
    assert plan.rows_N.tolist() == [p * G + g for p, g in signal.active_PG.nonzero().tolist()]
    table = signal.advantages_PG[..., None] if signal.advantages_PGL is None else signal.advantages_PGL
    assert torch.equal(plan.advantages_NL, table[signal.active_PG])
    assert torch.equal(plan.anchor_N, mask(signal.anchor_slot_P, G)[signal.active_PG])
    assert (plan.weights_N[~plan.anchor_N if name in OWN_ANCHOR_WEIGHT else slice(None)] == 1).all()
    assert plan.normaliser == max(1, len(plan.rows_N))
    assert torch.equal(signal.learnable_P, (table != 0).any((1, 2)))
    torch.testing.assert_close(plan.coefficients_NL, plan.weights_N[:, None] * plan.advantages_NL / plan.normaliser)


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
