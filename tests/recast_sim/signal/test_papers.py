"""Numbers of the papers' constructors within a group: decomposed REINFORCE, NGRPO, pass@k, two-GRPO, LUFFY, ViSurf."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import WIDTH_TWO, batches, facts, mask, one_group, tensor
from signal_oracle import grpo_group

from recast_sim.signal import SignalConfig, append_row, construct, group_state

pytestmark = pytest.mark.property


@facts
@given(batch=batches(rewards="graded"), weight=st.sampled_from([0.1, 1.0]))
def test_decomposed_reinforce(batch, weight):
    rewards, valid = batch["rewards_PG"], batch["valid_PG"]
    hits, misses = valid & (rewards > 0), valid & (rewards <= 0)
    expected = {
        "w_reinforce": weight * rewards * hits - misses.double(),
        "psr": rewards * hits,
        "nsr": -misses.double(),
    }
    for name, numbers in expected.items():
        signal = construct(name, **batch, config=SignalConfig(positive_weight=weight))
        torch.testing.assert_close(signal.advantages_PG, numbers)


@pytest.mark.parametrize("ddof", [0, 1])
@facts
@given(batch=batches(rewards="graded"), virtual=st.sampled_from([1.0, 2.0]))
def test_ngrpo_is_grpo_of_the_group_with_one_more_row(ddof, batch, virtual):
    signal = construct("ngrpo", **batch, config=SignalConfig(virtual_reward=virtual, std_ddof=ddof))
    for row, rewards, valid in zip(signal.advantages_PG, batch["rewards_PG"].tolist(), batch["valid_PG"].tolist(), strict=True):
        expected = grpo_group([*rewards, virtual], [*valid, True], ddof=ddof)
        torch.testing.assert_close(row, tensor(expected[:-1]))


@pytest.mark.parametrize("n", [1, 4, 31])
def test_ngrpo_pushes_an_all_zero_group_down_by_one_over_the_root(n):
    numbers = construct("ngrpo", torch.zeros(1, n + 1, dtype=torch.float64)).advantages_PG
    torch.testing.assert_close(numbers, torch.full_like(numbers, -1 / math.sqrt(n + 2)), rtol=1e-5, atol=0)
    assert (construct("ngrpo", torch.ones(1, n + 1)).advantages_PG == 0).all()


def passk_by_subsets(rewards, k):
    """Mean over the k-subsets with a row of (subset's best reward - mean) / std, both over all k-subsets."""
    subsets = [(s, max(rewards[i] for i in s)) for s in itertools.combinations(range(len(rewards)), k)]
    best = tensor([value for _, value in subsets])
    if best.unique().numel() < 2:
        return [0.0] * len(rewards)
    scaled = (best - best.mean()) / best.std(correction=0)
    of_row = [[a for (s, _), a in zip(subsets, scaled.tolist(), strict=True) if i in s] for i in range(len(rewards))]
    return [sum(values) / len(values) for values in of_row]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@facts
@given(data=st.data())
def test_pass_at_k_is_the_mean_over_all_k_subsets(k, data):
    batch = data.draw(batches(padding="none", min_G=5))
    signal = construct("pass_at_k", **batch, config=SignalConfig(pass_k=k, std_eps=1e-12))
    expected = tensor([passk_by_subsets(rewards, k) for rewards in batch["rewards_PG"].tolist()])
    torch.testing.assert_close(signal.advantages_PG, expected, rtol=1e-9, atol=1e-9)


@facts
@given(batch=batches())
def test_pass_at_1_is_grpo_with_the_population_std(batch):
    signal = construct("pass_at_k", **batch, config=SignalConfig(pass_k=1))
    torch.testing.assert_close(signal.advantages_PG, construct("grpo", **batch, config=SignalConfig(std_ddof=0)).advantages_PG)


def test_pass_at_k_gives_nothing_once_every_subset_holds_a_hit():
    signal = construct("pass_at_k", tensor([[1, 1, 1, 0, 0]]), config=SignalConfig(pass_k=3))
    assert (signal.advantages_PG == 0).all()


@facts
@given(batch=batches(rewards="graded"))
def test_two_grpo_is_grpo_of_the_first_two_valid_rows(batch):
    first = batch["valid_PG"] & (batch["valid_PG"].cumsum(1) <= 2)
    signal = construct("two_grpo", **batch)
    assert torch.equal(signal.active_PG, first)
    assert torch.equal(signal.advantages_PG, construct("grpo", **batch | {"valid_PG": first}).advantages_PG)


@facts
@given(batch=batches(rewards="graded", G=2))
def test_two_grpo_is_grpo_at_two(batch):
    assert torch.equal(construct("two_grpo", **batch).advantages_PG, construct("grpo", **batch).advantages_PG)


@facts
@given(batch=batches(rewards="graded"), gamma=st.sampled_from([0.1, 0.5]))
@pytest.mark.parametrize("rule", ["ratio_one", "clipped", "annealed"])
def test_luffy_centres_the_group_with_the_target_and_shapes_its_ratio(rule, batch, gamma):
    signal = construct("luffy", **batch, config=SignalConfig(anchor_weighting=rule, luffy_gamma=gamma))
    anchor = mask(signal.anchor_slot_P, signal.group_size)
    rewards = batch["rewards_PG"].masked_fill(anchor, 1.0)
    valid = batch["valid_PG"] | anchor
    assert torch.equal(signal.advantages_PG, construct("dr_grpo", rewards, valid_PG=valid).advantages_PG)
    assert torch.equal(anchor[:, -1], batch["has_anchor_P"])
    leaf = batch["anchor_logprob_P"].clone().requires_grad_()
    (shaped,) = torch.autograd.grad((leaf.exp() / (leaf.exp() + gamma)).sum(), leaf)
    torch.testing.assert_close(signal.plan.weights_N[signal.plan.anchor_N], shaped[batch["has_anchor_P"]])
    assert (signal.plan.weights_N[~signal.plan.anchor_N] == 1).all()


@facts
@given(batch=batches(rewards="graded"))
def test_visurf_appends_the_target_with_the_groups_mean_once_there_is_a_hit(batch):
    signal, G = construct("visurf", **batch), batch["rewards_PG"].shape[1]
    assert signal.group_size == G + 1
    assert torch.equal(signal.active_PG, torch.cat([batch["valid_PG"], batch["has_anchor_P"][:, None]], 1))
    for p, (rewards, valid) in enumerate(zip(batch["rewards_PG"], batch["valid_PG"], strict=True)):
        has, hit = batch["has_anchor_P"][p].item(), bool((rewards[valid] > 0).any())
        target = rewards[valid].mean().item() if hit else 1.0
        expected = tensor(grpo_group([*rewards.tolist(), target], [*valid.tolist(), has]))
        torch.testing.assert_close(signal.advantages_PG[p], expected, rtol=1e-9, atol=1e-9)
        assert (signal.advantages_PG[p, G] > 0) == (has and not hit)
        assert hit <= (signal.advantages_PG[p, G] == 0).item()


@facts
@given(batch=batches())
def test_an_appended_row_is_empty_in_every_table_and_leaves_the_others_alone(batch):
    before = group_state(**batch)
    after = append_row(before)
    for name, rows in vars(before).items():
        padded = getattr(after, name)
        if rows is None or "_PG" not in name:
            assert padded is rows
            continue
        assert torch.equal(padded[:, :-1], rows)
        assert (padded[:, -1] == (-1 if name == "sids_PGL" else 0)).all()


def test_visurf_by_hand():
    """All-zero: one 1 among four zeros, mean 1/5, std sqrt(1/5). One hit in four: mean 1/4 with and without the target."""
    rewards = tensor([[0, 0, 0, 0], [1, 0, 0, 0]])
    signal = construct("visurf", rewards, has_anchor_P=[True, True])
    a, b = 0.2 / (math.sqrt(0.2) + 1e-6), 0.25 / (math.sqrt(0.1875) + 1e-6)
    torch.testing.assert_close(signal.advantages_PG, tensor([[-a, -a, -a, -a, 4 * a], [3 * b, -b, -b, -b, 0]]))
    assert signal.anchor_slot_P.tolist() == [4, 4]
    assert signal.plan.rows_N.tolist() == list(range(10))
    assert signal.hits_before_P.tolist() == [0, 1]
    assert signal.hits_after_P.tolist() == [1, 2]
    assert signal.regime_before.all_zero == 0.5


@facts
@given(batch=batches())
def test_the_papers_constructors_need_a_hit_where_they_say_0(batch):
    for name in ("gpg", "bnpo", "pass_at_k", "psr", "rank_reward", "two_grpo", "wpauc", "reinforce_pp_baseline"):
        signal = construct(name, **batch, config=WIDTH_TWO)
        assert not signal.learnable_P[signal.hits_before_P == 0].any(), name


def test_one_group_helper_has_a_hit_for_each_reward():
    assert construct("psr", **one_group(1.0, 0.0)).advantages_PG.tolist() == [[1.0, 0.0]]
