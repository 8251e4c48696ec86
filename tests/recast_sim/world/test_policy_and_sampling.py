"""Policies and samplers against enumeration of a small tree."""

import copy

import pytest
import torch
from torch import Tensor
from worlds import small_base, small_environment

import recast_sim.world.policy
import recast_sim.world.sampling
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import beam_search, sample_iid, stochastic_beam

pytestmark = pytest.mark.property

KINDS = ["linear", "low_rank", "mlp"]


def plain_leaf_logprobs(policy: TreePolicy, x_PD: Tensor) -> Tensor:
    """The oracle: a log-softmax for each node, one after the other, (P, leaves)."""
    h, total = policy.encode(x_PD), torch.zeros(len(x_PD), 1)
    for level in range(policy.levels):
        logits = h @ policy.vectors[level].T + policy.biases[level]
        rows = [row[row >= 0] for row in policy.child_nodes(level)]
        total = torch.cat([total[:, [n]] + logits[:, row].log_softmax(1) for n, row in enumerate(rows)], dim=1)
    return total


def gradients(policy: TreePolicy, value: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(policy.parameters())))


def without_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score only the children of visited nodes, level by level, as on a large tree."""
    monkeypatch.setattr(recast_sim.world.policy, "_FEW", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_leaf_logprobs_and_gradients_are_those_of_the_plain_version(kind: str) -> None:
    policy, x = small_base(kind), small_environment().heldout.x_ND[:7]
    ours, plain = policy.leaf_logprobs(x), plain_leaf_logprobs(policy, x)
    torch.testing.assert_close(ours, plain)
    coefficient = torch.randn(plain.shape, generator=torch_generator(0))
    for one, other in zip(
        gradients(policy, (ours * coefficient).sum()), gradients(policy, (plain * coefficient).sum()), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_path_gradients_are_those_of_the_plain_version(kind: str, rows: int, shortcuts: bool, monkeypatch) -> None:
    if not shortcuts:
        without_shortcuts(monkeypatch)
    policy, x = small_base(kind), small_environment().heldout.x_ND[:7]
    leaf = torch.randint(policy.leaves, (7, rows), generator=torch_generator(1))
    ours, plain = policy.path_logprobs(x, leaf).sum(2), plain_leaf_logprobs(policy, x).gather(1, leaf)
    torch.testing.assert_close(ours, plain)
    coefficient = torch.randn(plain.shape, generator=torch_generator(0))
    for one, other in zip(
        gradients(policy, (ours * coefficient).sum()), gradients(policy, (plain * coefficient).sum()), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_steps_of_a_path_are_the_same_with_and_without_shortcuts(monkeypatch) -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:7]
    leaf = torch.randint(policy.leaves, (7, 2), generator=torch_generator(1))
    short = policy.path_logprobs(x, leaf)
    without_shortcuts(monkeypatch)
    torch.testing.assert_close(policy.path_logprobs(x, leaf), short)


@pytest.mark.parametrize("scale", [30.0, 300.0, 3000.0])
def test_logits_beyond_the_range_of_exp_are_exact(scale: float) -> None:
    policy, x = copy.deepcopy(small_base()), small_environment().heldout.x_ND[:5]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale)
    ours, plain = policy.leaf_logprobs(x), plain_leaf_logprobs(policy, x)
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6 * scale)
    assert all(torch.isfinite(g).all() for g in gradients(policy, ours.sum()))


def test_no_prompts_give_empty_tables() -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:0]
    assert policy.leaf_logprobs(x).shape == (0, policy.leaves)
    assert policy.path_logprobs(x, torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3, policy.levels)
    for group_size in (1, 1000):
        assert sample_iid(policy, x, group_size, torch_generator(0)).leaf_PG.shape == (0, group_size)


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


@pytest.mark.parametrize("kind", KINDS)
def test_iid_frequencies_match_probabilities_down_the_tree(kind: str) -> None:
    policy, x = small_base(kind), small_environment().heldout.x_ND[:1]
    rollouts = sample_iid(policy, x.expand(10_000, -1), 4, torch_generator(4))  # too few rollouts a prompt to enumerate leaves
    prob = policy.leaf_logprobs(x)[0].exp().double()
    share = torch.bincount(rollouts.leaf_PG.flatten(), minlength=policy.leaves) / 40_000
    assert ((share - prob) / (prob * (1 - prob) / 40_000).sqrt()).abs().max() < 5
    torch.testing.assert_close(rollouts.logprob_PG, policy.leaf_logprobs(x)[0][rollouts.leaf_PG])
    pairs = torch.stack(torch.unbind(rollouts.leaf_PG, 1)[:2])  # two rollouts of a group are independent
    joint = torch.bincount(pairs[0] * policy.leaves + pairs[1], minlength=policy.leaves**2).double() / 10_000
    expected = (prob[:, None] * prob).flatten()
    assert ((joint - expected) / (expected * (1 - expected) / 10_000).sqrt())[expected > 1e-3].abs().max() < 5


def test_large_trees_are_sampled_without_enumerating_leaves(monkeypatch) -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:9]
    monkeypatch.delattr(TreePolicy, "leaf_logprobs_of")
    assert sample_iid(policy, x, 2, torch_generator(0)).leaf_PG.shape == (9, 2)
    with pytest.raises(AttributeError):
        sample_iid(policy, x, 32, torch_generator(0))


@pytest.mark.parametrize("prompts", [1, 3, 40])
def test_chunks_bound_the_vectors_read_at_once_and_change_no_draw(prompts: int, monkeypatch) -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:100]
    whole = sample_iid(policy, x, 3, torch_generator(5))
    plain, sizes = TreePolicy.child_logprobs, []

    def recorded(policy: TreePolicy, h_PH: Tensor, level: int, node_PR: Tensor) -> Tensor:
        sizes.append(len(h_PH))
        return plain(policy, h_PH, level, node_PR)

    monkeypatch.setattr(TreePolicy, "child_logprobs", recorded)
    monkeypatch.setattr(recast_sim.world.sampling, "_CHUNK", prompts * 3 * max(policy.widths) * x.shape[1])
    again = sample_iid(policy, x, 3, torch_generator(5))
    assert max(sizes) == prompts
    assert again.leaf_PG.equal(whole.leaf_PG)
    torch.testing.assert_close(again.logprob_PG, whole.logprob_PG)


def test_a_prompt_draws_the_same_alone() -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:100]
    first = sample_iid(policy, x, 3, torch_generator(6)).leaf_PG[:1]
    assert sample_iid(policy, x[:1], 3, torch_generator(6)).leaf_PG.equal(first)


@pytest.mark.parametrize("group_size", [3, 64])
def test_a_generator_determines_the_rollouts(group_size: int) -> None:
    policy, x = small_base(), small_environment().heldout.x_ND[:50]
    one, other, third = (sample_iid(policy, x, group_size, torch_generator(seed)).leaf_PG for seed in (8, 8, 9))
    assert one.equal(other)
    assert not one.equal(third)


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


@pytest.mark.parametrize("width", [1, 2, 4])
def test_weights_of_a_stochastic_beam_sum_to_one_in_the_mean(width: int) -> None:
    x = small_environment().heldout.x_ND[:1].expand(20_000, -1)
    weight_PG = stochastic_beam(small_base(), x, width, torch_generator(11)).weight_PG
    assert weight_PG is not None
    total_P = weight_PG.double().sum(1)
    assert abs(float(total_P.mean()) - 1) < 4.5 * float(total_P.std()) / len(x) ** 0.5


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
