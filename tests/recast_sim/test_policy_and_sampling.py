"""Policies and samplers against enumeration of a small tree."""

import pytest
import torch
from worlds import small_base, small_environment

from recast_sim.sampling import beam_search, sample_iid, stochastic_beam
from recast_sim.seeding import torch_generator

pytestmark = pytest.mark.property

KINDS = ["linear", "low_rank", "mlp"]


@pytest.mark.parametrize("kind", KINDS)
def test_leaf_probabilities_sum_to_one_and_agree_with_paths(kind: str) -> None:
    policy, x = small_base(kind), small_environment().heldout.x_ND[:7]
    leaves = torch.arange(policy.leaves).expand(7, -1)
    enumerated = policy.leaf_logprobs(x)
    torch.testing.assert_close(enumerated.exp().sum(1), torch.ones(7))
    torch.testing.assert_close(policy.path_logprobs(x, leaves).sum(2), enumerated)


def test_both_ways_to_score_children_agree() -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:3]
    node = torch.arange(16).expand(3, -1) % len(policy.child_nodes(2))
    many = policy.child_logprobs(x, 2, node)  # enough rows that every node of the level is scored
    one = torch.cat([policy.child_logprobs(x, 2, node[:, i : i + 1]) for i in range(16)], dim=1)
    torch.testing.assert_close(many, one)


@pytest.mark.parametrize("kind", KINDS)
def test_iid_frequencies_match_probabilities(kind: str) -> None:
    policy, x = small_base(kind), small_environment().heldout.x_ND[:2]
    draws = 20_000
    rollouts = sample_iid(policy, x, draws, torch_generator(0))
    prob = policy.leaf_logprobs(x).exp().double()
    count = torch.stack([torch.bincount(row, minlength=policy.leaves) for row in rollouts.leaf_PG]).double()
    z = (count / draws - prob) / (prob * (1 - prob) / draws).sqrt()
    assert z.abs().max() < 5
    torch.testing.assert_close(rollouts.logprob_PG, policy.leaf_logprobs(x).gather(1, rollouts.leaf_PG))


def test_a_wide_enough_beam_is_the_ranking_of_all_leaves() -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:5]
    logprobs = policy.leaf_logprobs(x)
    rollouts = beam_search(policy, x, policy.leaves + 3)
    torch.testing.assert_close(rollouts.logprob_PG[:, : policy.leaves], logprobs.sort(1, descending=True).values)
    assert rollouts.valid_PG.sum(1).tolist() == [policy.leaves] * 5
    torch.testing.assert_close(logprobs.gather(1, rollouts.leaf_PG[:, :5]), rollouts.logprob_PG[:, :5])


def test_stochastic_beams_hold_distinct_leaves_and_unbiased_weights() -> None:
    policy = small_base()
    x = small_environment().heldout.x_ND[:1].expand(20_000, -1)
    value = torch.linspace(-1, 2, policy.leaves).square()
    rollouts = stochastic_beam(policy, x, 6, torch_generator(1))
    assert all(len(set(row)) == 6 for row in rollouts.leaf_PG[:50].tolist())
    assert rollouts.weight_PG is not None
    estimate = (rollouts.weight_PG * value[rollouts.leaf_PG]).sum(1).double()
    exact = (policy.leaf_logprobs(x[:1]).exp() @ value).double()
    assert abs(estimate.mean() - exact) < 5 * estimate.std() / len(x) ** 0.5
    beam = beam_search(policy, x[:1], 6)
    plain = (beam.logprob_PG.exp() * value[beam.leaf_PG]).sum()
    assert abs(plain - exact) > 0.05 * exact  # the top-k sum of a deterministic beam is not unbiased


def test_stochastic_beam_as_wide_as_the_tree_is_the_whole_tree() -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:4]
    rollouts = stochastic_beam(policy, x, policy.leaves, torch_generator(2))
    assert rollouts.weight_PG is not None
    assert sorted(rollouts.leaf_PG[0].tolist()) == list(range(policy.leaves))
    torch.testing.assert_close(rollouts.weight_PG.sum(1), torch.ones(4))


def test_first_of_a_stochastic_beam_is_a_sample() -> None:
    policy = small_base()
    x = small_environment().heldout.x_ND[:1].expand(20_000, -1)
    first = stochastic_beam(policy, x, 3, torch_generator(3)).leaf_PG[:, 0]
    prob = policy.leaf_logprobs(x[:1])[0].exp().double()
    share = torch.bincount(first, minlength=policy.leaves).double() / len(x)
    assert ((share - prob) / (prob * (1 - prob) / len(x)).sqrt()).abs().max() < 5
