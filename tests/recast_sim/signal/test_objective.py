"""The loss of a plan: clip, KL, weights and normaliser, against hand computation and autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import facts, one_group, tensor

from recast_sim.signal import (
    ObjectiveConfig,
    SignalConfig,
    SignalError,
    clipped_surrogate,
    construct,
    low_variance_kl,
    plan_objective,
)

pytestmark = pytest.mark.property

logprobs = st.lists(st.floats(-5, 0), min_size=4, max_size=4).map(lambda row: tensor(row).view(2, 2))


@facts
@given(new=logprobs, old=logprobs, advantage=st.sampled_from([1.0, -1.0]))
def test_clip_takes_the_pessimistic_of_the_two(new, old, advantage):
    loss, binds = clipped_surrogate(new, old, tensor([advantage, advantage]), 0.2, 0.3)
    for loss_i, bind_i, ratio in zip(loss.view(-1), binds.view(-1), (new - old).exp().view(-1).tolist(), strict=True):
        clipped = min(max(ratio, 0.8), 1.3)
        assert float(loss_i) == pytest.approx(-min(ratio * advantage, clipped * advantage))
        assert bool(bind_i) == (ratio > 1.3 if advantage > 0 else ratio < 0.8)


@facts
@given(new=logprobs, reference=logprobs)
def test_the_kl_estimate_is_never_negative_and_zero_only_at_the_reference(new, reference):
    estimate = low_variance_kl(new, reference)
    assert (estimate >= 0).all()
    assert (low_variance_kl(new, new) == 0).all()


def test_the_kl_estimate_is_unbiased():
    p, q = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    expected = (p * (p / q).log()).sum()
    assert (p * low_variance_kl(p.log(), q.log())).sum() == pytest.approx(float(expected))


@pytest.mark.parametrize("rule", ["groups", "active_rows", "all_rows"])
def test_on_policy_the_gradient_is_the_plans_coefficients(rule):
    signal = construct("grpo", **one_group(1.0, 0.0, 0.0), config=SignalConfig(normaliser=rule))
    new = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    plan_objective(signal.plan, new, new.detach(), None, ObjectiveConfig()).loss.backward()
    assert new.grad is not None
    torch.testing.assert_close(-new.grad, signal.plan.coefficients_N[:, None].expand(3, 2))


def test_weights_scale_the_surrogate_and_not_the_kl():
    config = SignalConfig(anchor_weighting="clipped", anchor_floor=0.25)
    signal = construct("sft", **one_group(0.0, 0.0, anchor_logprob_P=tensor([-20.0])), config=config)
    new, reference = tensor([[-1.0, -2.0]]), tensor([[-1.5, -1.0]])
    result = plan_objective(signal.plan, new, new, reference, ObjectiveConfig(kl=2.0))
    kl = float(low_variance_kl(new, reference).sum())
    assert float(result.loss) == pytest.approx(-0.25 * 2 + 2.0 * kl)
    assert result.kl == pytest.approx(kl)
    assert result.clip_share == 0


def test_kl_without_a_reference_and_bad_fields_are_refused():
    signal = construct("grpo", **one_group(1.0, 0.0))
    new = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(SignalError, match="reference_NL: missing"):
        plan_objective(signal.plan, new, new, None, ObjectiveConfig(kl=0.1))
    for name in ("clip_low", "clip_high", "kl"):
        with pytest.raises(SignalError, match=f"ObjectiveConfig.{name}: -0.1"):
            ObjectiveConfig(**{name: -0.1})
        with pytest.raises(SignalError, match=f"ObjectiveConfig.{name}: nan"):
            ObjectiveConfig(**{name: float("nan")})
