"""Advantages of the group methods."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import CENTRED, WIDTH_TWO, batches, facts, tensor
from signal_oracle import grpo_group

from recast_sim.signal import (
    SignalConfig,
    SignalError,
    construct,
    group_state,
    repair_all_zero,
)

pytestmark = pytest.mark.property


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


@facts
@given(batch=batches(rewards="graded"))
def test_shares_of_the_reward_are_max_rl_without_its_baseline(batch):
    shares, centred = (construct(name, **batch, config=SignalConfig(mean_eps=0.0)) for name in ("reward_share", "max_rl"))
    rewarded = batch["valid_PG"] & (batch["rewards_PG"] * batch["valid_PG"] > 0).any(1, keepdim=True)
    torch.testing.assert_close(shares.advantages_PG, centred.advantages_PG + rewarded.double())


def test_shares_of_three_probabilities():
    signal = construct("reward_share", tensor([[0.1, 0.3, 0.2], [0.0, 0.0, 0.0]]), config=SignalConfig(mean_eps=0.0))
    torch.testing.assert_close(signal.advantages_PG, tensor([[0.5, 1.5, 1.0], [0.0, 0.0, 0.0]]))
    assert signal.learnable_P.tolist() == [True, False]


@pytest.mark.parametrize("name", ["max_rl", "reward_share"])
@pytest.mark.parametrize("rewards", [(-1.0, 1.0), (-1.0, 0.0)])
def test_a_division_by_the_mean_refuses_rewards_below_zero(name, rewards):
    with pytest.raises(SignalError, match=r"^rewards_PG: prompt 1"):
        construct(name, tensor([[0.0, 1.0], rewards]))


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
