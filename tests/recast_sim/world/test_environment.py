import dataclasses

import numpy as np
import pytest
import torch
from worlds import SMALL, small_base, small_environment

from recast_sim.closed_forms.iid_groups import regime_given_hit_rates
from recast_sim.world.calibration import CalibrationError, calibrate, hit_rates
from recast_sim.world.environment import EnvironmentConfig, WorldError, best_possible, make_environment
from recast_sim.world.evaluation import evaluate
from recast_sim.world.policy import PolicyConfig, PolicyError
from recast_sim.world.pretraining import target_logprobs, train_base


def sibling_similarity(rho: float) -> float:
    """Mean product of item vectors (unit variance a dimension) that share the first two levels."""
    world = make_environment(EnvironmentConfig(items=200, sizes=(4, 4, 16), dim=64, rho=rho), seed=1)
    codes, z = world.catalog.codes_IL, world.item_ID
    pairs = [(i, j) for i in range(200) for j in range(i) if (codes[i, :2] == codes[j, :2]).all()]
    return float(np.mean([float(z[i] @ z[j]) / 64 for i, j in pairs]))


def test_rho_is_how_far_the_tree_agrees_with_relevance() -> None:
    # two shared levels hold 4/7 + 2/7 of the path's variance
    assert sibling_similarity(0.0) == pytest.approx(0.0, abs=0.05)
    assert sibling_similarity(0.5) == pytest.approx(0.5 * 6 / 7, abs=0.06)
    assert sibling_similarity(1.0) == pytest.approx(6 / 7, abs=0.08)


def test_targets_follow_the_true_preference() -> None:
    world = make_environment(dataclasses.replace(SMALL, train_prompts=20_000), seed=3)
    top = world.log_preference(world.train.context_ND).exp().max(1)
    leaf = torch.from_numpy(world.catalog.leaf_of_item_I)[top.indices]
    hit = (leaf == world.train.target_NT[:, 0]).double()
    expected = top.values.double()
    assert abs(hit.mean() - expected.mean()) < 5 * (expected * (1 - expected)).sum().sqrt() / len(hit)


def test_several_targets_are_distinct() -> None:
    targets = small_environment(targets=3).train.target_NT
    assert targets.shape == (256, 3)
    assert all(len(set(row)) == 3 for row in targets.tolist())


def test_same_seed_same_world_other_seed_another() -> None:
    assert torch.equal(make_environment(SMALL, 5).train.x_ND, make_environment(SMALL, 5).train.x_ND)
    assert not torch.equal(make_environment(SMALL, 5).train.x_ND, make_environment(SMALL, 6).train.x_ND)


def test_convergence_orders_the_base_policies() -> None:
    world = small_environment()
    bases = [train_base(world, PolicyConfig(), convergence, 0).policy for convergence in (0, 0.5, 1, 6)]
    with torch.no_grad():
        heldout = [float(target_logprobs(base, world.heldout).mean()) for base in bases]
        train = [float(target_logprobs(base, world.train).mean()) for base in bases]
    assert heldout[0] < heldout[1] < heldout[2] > heldout[3]
    assert train == sorted(train)


def test_calibration_shows_the_regime_and_says_when_it_cannot() -> None:
    config = EnvironmentConfig(train_prompts=4096, heldout_prompts=1024)
    found = calibrate((0.85, 0.13, 0.02), 32, config, PolicyConfig(), 1.0, seed=7)
    world = make_environment(found.config, 7)
    rates = hit_rates(world, train_base(world, PolicyConfig(), 1.0, 7))
    rng = np.random.default_rng(0)
    hits = rng.binomial(32, np.repeat(rates, 20))  # measured: groups drawn, hits counted
    measured = [float((hits == 0).mean()), float((hits == 1).mean()), float((hits > 1).mean())]
    np.testing.assert_allclose(measured, (0.85, 0.13, 0.02), atol=0.01)
    np.testing.assert_allclose(found.regime, regime_given_hit_rates(rates, 32)[:3], atol=1e-4)
    with pytest.raises(CalibrationError, match="nearest"):
        calibrate((0.5, 0.0, 0.5), 32, SMALL, PolicyConfig(), 1.0, seed=0)
    with pytest.raises(CalibrationError, match="three shares"):
        calibrate((0.5, 0.1, 0.1), 32, SMALL, PolicyConfig(), 1.0, seed=0)


def test_expected_metrics_are_what_drawn_targets_average_to() -> None:
    world, policy = small_environment(), small_base()
    metrics = evaluate(policy, world, k=5)
    preference = world.log_preference(world.heldout.context_ND).exp()
    probability = policy.leaf_logprobs(world.heldout.x_ND).exp()[:, torch.from_numpy(world.catalog.leaf_of_item_I)].detach()
    assert metrics["pass_at_1_sampled"] == pytest.approx(float((preference * probability).sum(1).mean()), rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(preference, 400, replacement=True, generator=generator)
    order = probability.argsort(1, descending=True)
    rank = (order[:, :, None] == draws[:, None]).double().argmax(1)
    for name, values in {
        "pass_at_1_greedy": (rank == 0).double(),
        "pass_at_k_beam": (rank < 5).double(),
        "ndcg_at_k": torch.where(rank < 5, 1 / torch.log2(rank + 2), 0.0),
        "pass_at_k_iid": 1 - (1 - probability.gather(1, draws).double()) ** 5,
    }.items():
        error = float(values.mean(0).std()) / 400**0.5  # of the mean over the draws of a fixed set of prompts
        assert abs(metrics[name] - float(values.mean())) < 5 * error, name
    assert metrics["recall_at_k"] == pytest.approx(metrics["pass_at_k_beam"])


def test_several_targets_are_evaluated_as_drawn() -> None:
    world, policy = small_environment(targets=3), small_base()
    metrics = evaluate(policy, world, k=5)
    probability = policy.leaf_logprobs(world.heldout.x_ND).exp()
    order = probability.argsort(1, descending=True).tolist()
    targets = [set(row) for row in world.heldout.target_NT.tolist()]
    recall = np.mean([len(set(o[:5]) & t) / 3 for o, t in zip(order, targets, strict=True)])
    hit = np.mean([bool(set(o[:5]) & t) for o, t in zip(order, targets, strict=True)])
    assert metrics["recall_at_k"] == pytest.approx(recall)
    assert metrics["pass_at_k_beam"] == pytest.approx(hit)
    ideal = sum(1 / np.log2(r + 2) for r in range(3))
    gains = [sum(1 / np.log2(r + 2) for r, leaf in enumerate(o[:5]) if leaf in t) for o, t in zip(order, targets, strict=True)]
    assert metrics["ndcg_at_k"] == pytest.approx(np.mean(gains) / ideal, rel=1e-5)


def test_nobody_beats_the_best_possible() -> None:
    world = small_environment()
    best = best_possible(world)
    metrics = evaluate(small_base(), world)
    assert metrics["pass_at_1_sampled"] < metrics["pass_at_1_greedy"] < best["pass_at_1"]
    assert 0 < best["entropy"] < np.log(40)


@pytest.mark.parametrize(
    ("field", "value"), [("rho", 1.5), ("beta", -1.0), ("targets", 0), ("targets", 41), ("dim", 0), ("blur", -0.1)]
)
def test_bad_knobs_name_the_field(field: str, value: float) -> None:
    with pytest.raises(WorldError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_bad_policy_and_convergence() -> None:
    with pytest.raises(PolicyError, match="width: 0"):
        PolicyConfig(width=0)
    with pytest.raises(PolicyError, match="convergence: -1"):
        train_base(small_environment(), PolicyConfig(), -1, 0)
