"""The fast reductions and picks against argmax and masks; what the checks let through and what a state forgets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_sim.signal import SignalConfig, SignalError, construct, group_state
from recast_sim.signal import reductions as tables_module
from recast_sim.signal.reductions import flags, highest
from recast_sim.signal.steps.pick import pick_cheapest, pick_hit, pick_miss

pytestmark = pytest.mark.property

facts = settings(max_examples=100, deadline=None, database=None, derandomize=True)


def best_row(score, candidates):
    """The plain pick: the first maximum among the candidates, -1 where there is none."""
    return torch.where(candidates.any(1), score.masked_fill(~candidates, -torch.inf).argmax(1), -1)


@st.composite
def few_values(draw, low=-2, high=2):
    """(P, G) tables with many ties, of both dtypes."""
    P, G = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    seed, dtype = draw(st.integers(0, 999)), draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.randint(low, high + 1, (P, G), generator=torch.Generator().manual_seed(seed)).to(dtype) / 2


@facts
@given(values=few_values(), part=st.sampled_from([1, 50, 2**17]))
def test_highest_is_the_first_maximum_whatever_the_parts(values, part):
    values[:, ::3] = -torch.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables_module, "_PART", part)
        best, row = highest(torch.Tensor.detach, values)
    assert row.dtype == torch.int64
    assert torch.equal(best, values.amax(1))
    assert torch.equal(row, torch.where(best == -torch.inf, 0, values.argmax(1)))


@pytest.mark.parametrize("compare", [torch.gt, torch.le, torch.lt, torch.ne])
def test_flags_are_the_comparison_in_the_values_dtype(compare):
    values = torch.tensor([[0.5, 0.0, -0.0, -1.0]], dtype=torch.float64)
    assert torch.equal(flags(compare, values, 0.0), compare(values, 0.0).double())


@facts
@given(rewards=few_values(), seed=st.integers(0, 999), hit_above=st.sampled_from([-0.75, 0.0, 0.5]), partial=st.booleans())
def test_the_picks_are_masked_argmaxes(rewards, seed, hit_above, partial):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.tensor([0.0, 0.01, 0.1, 1.0])[torch.randint(4, rewards.shape, generator=generator)].to(rewards.dtype)
    valid = torch.rand(rewards.shape, generator=generator) < (0.6 if partial else 1.0)
    valid[:, 0] |= ~valid.any(1)
    state = group_state(rewards, scores, valid, config=SignalConfig(hit_above=hit_above))
    hits = valid & (rewards > hit_above)
    assert torch.equal(state.hits_PG, hits)
    assert torch.equal(state.misses_PG, valid & ~hits)
    assert torch.equal(state.any_hit_P(), hits.any(1))
    assert torch.equal(pick_hit(state), best_row(rewards, hits))
    assert torch.equal(pick_miss(state, scores), best_row(scores, valid & ~hits))
    assert torch.equal(pick_cheapest(state, scores), best_row(-scores, torch.ones_like(valid)))


@pytest.mark.parametrize("rewards", [[[3e38, 3e38, 0.0]], [[0.0, 1e20, 0.0]]])
def test_finite_rewards_whose_squares_overflow_are_named(rewards):
    with pytest.raises(SignalError, match=r"rewards_PG: prompt 0, rollout \d is .*overflow torch.float32; rescale"):
        construct("grpo", torch.tensor(rewards))
    assert construct("grpo", torch.tensor(rewards, dtype=torch.float64)).advantages_PG.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_from_minus_zero_to_one_are_let_through_and_the_next_float_is_not(dtype):
    one = torch.ones((), dtype=dtype)
    rewards = torch.zeros(1, 3, dtype=dtype)
    assert construct("boundary_only", rewards, [[-0.0, 0.0, 1.0]]).negative_P.tolist() == [-1]
    above = one.nextafter(2 * one)
    with pytest.raises(SignalError, match=r"rollout 2 .* scores must lie in"):
        group_state(rewards, torch.stack([one, 0 * one, above])[None])
    with pytest.raises(SignalError, match="rollout 1 is nan; values must be finite"):
        group_state(rewards, [[0.0, torch.nan, 1.0]])


def test_what_comes_in_with_a_gradient_is_read_without_it():
    """Log-probabilities of a policy in training carry one; a signal is a weight."""
    logprob = torch.full((2, 3), -1.0, requires_grad=True)
    rewards, scores = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    anchors = torch.ones(2, dtype=torch.bool)
    for name in ("recast", "grpo", "care"):
        signal = construct(name, rewards, scores, logprob_PG=logprob, has_anchor_P=anchors)
        assert not signal.advantages_PG.requires_grad
