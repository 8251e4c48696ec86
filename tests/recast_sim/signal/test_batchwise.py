"""Constructors whose numbers depend on the whole batch."""

import math

import pytest
import torch
from hypothesis import given
from signal_cases import batches, facts, tensor

from recast_sim.signal import SignalConfig, construct

pytestmark = pytest.mark.property


@facts
@given(batch=batches(rewards="graded"))
def test_reinforce_pp_has_mean_0_and_std_1_over_the_valid_rows(batch):
    used = construct("reinforce_pp", **batch).advantages_PG[batch["valid_PG"]]
    rewards = batch["rewards_PG"][batch["valid_PG"]]
    if len(rewards.unique()) < 2:
        assert (used == 0).all()
        return
    torch.testing.assert_close(used, (rewards - rewards.mean()) / (rewards.var() + 1e-8).sqrt())
    assert used.mean().item() == pytest.approx(0, abs=1e-12)
    assert used.std().item() == pytest.approx(1, rel=1e-6)


@facts
@given(batch=batches(rewards="graded"))
def test_reinforce_pp_baseline_scales_dr_grpo_to_std_1(batch):
    used = construct("reinforce_pp_baseline", **batch).advantages_PG[batch["valid_PG"]]
    centred = construct("dr_grpo", **batch).advantages_PG[batch["valid_PG"]]
    if not centred.any():
        assert (used == 0).all()
        return
    torch.testing.assert_close(used, centred / (centred.var() + 1e-8).sqrt())
    assert used.mean().item() == pytest.approx(0, abs=1e-9)
    assert used.std().item() == pytest.approx(1, rel=1e-6)


@facts
@given(batch=batches(rewards="graded"))
def test_gpg_is_dr_grpo_times_rows_over_rewarded_rows(batch):
    rewards, valid = batch["rewards_PG"], batch["valid_PG"]
    alpha = valid.sum() / max(1, int((rewards[valid] != 0).sum()))
    signal = construct("gpg", **batch, config=SignalConfig(gpg_norm=2.0))
    torch.testing.assert_close(signal.advantages_PG, construct("dr_grpo", **batch).advantages_PG * alpha / 2)


def test_gpg_counts_rows_and_not_groups():
    """Two groups of two with one rewarded row: alpha = 4 / 1, and the hit has 4 (1 - 1/2) = 2."""
    assert construct("gpg", tensor([[1, 0], [0, 0]])).advantages_PG.tolist() == [[2.0, -2.0], [0.0, 0.0]]


@pytest.mark.parametrize("cap", [1e6, 0.5])
@facts
@given(batch=batches(padding="none"))
def test_bnpo_divides_by_the_fitted_beta_density(cap, batch):
    rewards = batch["rewards_PG"]
    mean = rewards.mean(1)
    if len(mean) < 2 or mean.var() < 1e-12:
        factor = torch.ones_like(mean).clamp(max=cap)
    else:
        center, spread = mean.mean().item(), mean.var().item()
        total = center * (1 - center) / spread - 1
        alpha, beta = max(1.0, 1 + total * center / 3), max(1.0, 1 + total * (1 - center) / 3)
        log_b = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
        factor = tensor(
            [min(cap, math.exp(log_b) / max(m ** (alpha - 1) * (1 - m) ** (beta - 1), 1e-300)) for m in mean.tolist()]
        )
    signal = construct("bnpo", **batch, config=SignalConfig(bnpo_max_weight=cap))
    torch.testing.assert_close(signal.advantages_PG, (rewards - mean[:, None]) * factor[:, None], rtol=1e-6, atol=1e-9)


def test_bnpo_by_hand():
    """Means 1/4, 1/2 and 3/4: center 1/2, variance 1/16, so a + b = 3, a = b = 3/2, and the density is Beta(3/2, 3/2)."""
    signal = construct("bnpo", tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]))
    density = [8 / math.pi * math.sqrt(m * (1 - m)) for m in (0.25, 0.5, 0.75)]
    expected = [(1 - m) / d for m, d in zip((0.25, 0.5, 0.75), density, strict=True)]
    torch.testing.assert_close(signal.advantages_PG[:, 0], tensor(expected))


def test_bnpo_of_groups_with_equal_means_is_dr_grpo():
    rewards = tensor([[1, 0, 0], [0, 1, 0]])
    assert torch.equal(construct("bnpo", rewards).advantages_PG, construct("dr_grpo", rewards).advantages_PG)


def test_spo_by_hand():
    """r - b is .75, -.25, -.5, -.5: mean -1/8, and the rest over the std with 3 in its denominator."""
    signal = construct("spo", tensor([[1, 0], [0, 0]]), baseline_P=[0.25, 0.5])
    deviations = tensor([0.875, -0.125, -0.375, -0.375])
    std = math.sqrt(deviations.square().sum().item() / 3)
    torch.testing.assert_close(signal.advantages_PG.flatten(), deviations / (std + 1e-8))
    assert signal.plan.rows_N.tolist() == [0, 1, 2, 3]


def test_spo_needs_no_group():
    signal = construct("spo", tensor([[1], [0], [0]]), baseline_P=[0.5, 0.5, 0.0])
    torch.testing.assert_close(signal.advantages_PG[:, 0], tensor([0.5, -0.5, 0.0]) / (0.5 + 1e-8))


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline", "gpg", "bnpo", "spo"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
def test_equal_rewards_give_exactly_zero_whatever_the_rounding(name, value):
    signal = construct(name, torch.full((3, 7), value), baseline_P=[0.2] * 3)
    assert (signal.advantages_PG == 0).all()
