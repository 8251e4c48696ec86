"""Regimes, tie rules and the choice of anchors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from signal_cases import batches, facts, final_state, tensor

from recast_sim.signal import (
    REGIMES,
    SignalConfig,
    choose_anchor,
    construct,
    regime_codes,
)

pytestmark = pytest.mark.property


@facts
@given(batch=batches(rewards="graded"), threshold=st.sampled_from([0.0, 0.25, 0.5]))
def test_regimes_partition_the_groups(batch, threshold):
    signal = construct("recast", **batch, config=SignalConfig(hit_above=threshold))
    after = final_state("recast", batch, SignalConfig(hit_above=threshold))
    stages = [(signal.regime_before, batch["rewards_PG"], batch["valid_PG"], signal.hits_before_P)]
    stages.append((signal.regime_after, after.rewards_PG, after.valid_PG, signal.hits_after_P))
    for regime, rewards, valid, hits_P in stages:
        names = []
        for row, used, hits in zip(rewards, valid, hits_P.tolist(), strict=True):
            n = int(used.sum())
            assert hits == sum(r > threshold for r in row[used].tolist())
            names.append("all_zero" if hits == 0 else "all_hit" if hits == n else "single_hit" if hits == 1 else "multi_hit")
        shares = {name: names.count(name) / len(names) for name in REGIMES}
        assert {name: getattr(regime, name) for name in REGIMES} == pytest.approx(shares)
        assert regime.learnable == pytest.approx(shares["single_hit"] + shares["multi_hit"])
        assert sum(getattr(regime, name) for name in REGIMES) == pytest.approx(1)


@pytest.mark.parametrize(
    ("hits", "valid", "regime"),
    [(0, 4, 0), (1, 4, 1), (2, 4, 2), (3, 4, 2), (4, 4, 3), (1, 1, 3), (0, 1, 0), (2, 2, 3), (1, 2, 1)],
)
def test_regime_of_a_group(hits, valid, regime):
    assert regime_codes(torch.tensor([hits]), torch.tensor([valid])).tolist() == [regime]


@facts
@given(batch=batches())
def test_with_binary_rewards_grpo_learns_exactly_from_the_naturally_learnable_groups(batch):
    signal = construct("grpo", **batch)
    n = batch["valid_PG"].sum(1)
    assert torch.equal(signal.learnable_P, (signal.hits_before_P > 0) & (signal.hits_before_P < n))
    assert signal.regime_before.learnable == pytest.approx(signal.learnable_P.double().mean().item())
    assert signal.regime_after == signal.regime_before


def tied(rule, seed=None, logprob=(-3.0, -1.0, -2.0, -4.0)):
    """Two hits (rows 0, 1) and two equally hard misses (rows 2, 3)."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batch = {"rewards_PG": tensor([[1, 1, 0, 0]]), "structural_PG": tensor([[1, 1, 0.1, 0.1]])}
    config = SignalConfig(tie_rule=rule)
    signal = construct("boundary_only", **batch, logprob_PG=tensor([logprob]), config=config, generator=generator)
    return signal.positive_P.item(), signal.negative_P.item()


def test_tie_rule_first_takes_the_first_row():
    assert tied("first") == (0, 2)


def test_tie_rule_highest_logprob_takes_the_likeliest_row():
    assert tied("highest_logprob") == (1, 2)
    assert tied("highest_logprob", logprob=(-1.0, -3.0, -4.0, -2.0)) == (0, 3)


def test_tie_rule_random_reaches_every_tied_row_and_repeats_with_its_generator():
    picks = [tied("random", seed) for seed in range(40)]
    assert set(picks) == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert picks == [tied("random", seed) for seed in range(40)]


@pytest.mark.parametrize("rule", ["first", "random", "highest_logprob"])
@facts
@given(batch=batches(distinct_scores=True), seed=st.integers(0, 2**20))
def test_tie_rules_only_break_ties(rule, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    signal = construct("recast", **batch, config=SignalConfig(tie_rule=rule), generator=generator)
    after = final_state("recast", batch)
    for p, (g, slot) in enumerate(zip(signal.negative_P.tolist(), signal.anchor_slot_P.tolist(), strict=True)):
        if g >= 0:
            misses = batch["valid_PG"][p] & (batch["rewards_PG"][p] <= 0)
            misses[slot] &= slot < 0
            assert batch["structural_PG"][p, g] == batch["structural_PG"][p][misses].max()
    if batch["valid_PG"].all():
        assert torch.equal(signal.anchor_slot_P, after.anchor_slot_P)


TARGETS = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])


@pytest.mark.parametrize(("rule", "expected"), [("first", [1, -1, 0]), ("most_likely", [2, -1, 0])])
def test_choose_anchor(rule, expected):
    logprob = tensor([[-0.1, -2.0, -1.0], [-1.0, -1.0, -1.0], [-1.0, -0.5, -2.0]])
    assert choose_anchor(TARGETS, rule, logprob).tolist() == expected


def test_choose_anchor_at_random_takes_every_real_target_and_no_other():
    picks = [choose_anchor(TARGETS, "random", generator=torch.Generator().manual_seed(s)).tolist() for s in range(40)]
    assert {tuple(p) for p in picks} == {(a, -1, b) for a in (1, 2) for b in (0, 2)}
