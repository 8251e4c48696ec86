"""The log against the true preference: exposure, wrong labels, rewards that know more; and fresh prompts beside them."""

import dataclasses
from collections import Counter

import pytest
import torch
from worlds import SMALL

from recast_sim.world.calibration import hit_rates
from recast_sim.world.environment import Environment, EnvironmentConfig, WorldError, make_environment
from recast_sim.world.evaluation import reward_probability
from recast_sim.world.policy import PolicyConfig
from recast_sim.world.pretraining import train_base


def world(**knobs: float) -> Environment:
    return make_environment(dataclasses.replace(SMALL, train_prompts=2000, **knobs), seed=3)


PLAIN = world()


def test_without_a_knob_the_reward_is_on_the_logs_targets() -> None:
    assert PLAIN.config.reward_is_the_log
    assert torch.equal(PLAIN.train.reward_NR, PLAIN.train.target_NT)
    assert len(PLAIN.fresh.x_ND) == 0


@pytest.mark.parametrize("knobs", [{"exposure": 1.0}, {"label_noise": 0.5}, {"reward_knows": 0.7}, {"fresh_prompts": 50}])
def test_a_knob_of_the_log_leaves_all_else_of_the_world(knobs: dict[str, float]) -> None:
    found = world(**knobs)
    assert torch.equal(found.item_ID, PLAIN.item_ID)
    assert torch.equal(found.train.x_ND, PLAIN.train.x_ND)
    for split in ("heldout", "validation"):
        mine, plain = (getattr(environment, split) for environment in (found, PLAIN))
        for field in dataclasses.fields(plain):
            assert torch.equal(getattr(mine, field.name), getattr(plain, field.name)), (split, field.name)
    changed = "reward_knows" not in knobs and "fresh_prompts" not in knobs
    assert torch.equal(found.train.target_NT, PLAIN.train.target_NT) != changed


def test_exposure_tilts_the_logs_targets_alone() -> None:
    most = [Counter(world(exposure=e).train.target_NT.flatten().tolist()).most_common(1)[0][1] for e in (0.0, 1.0, 2.0)]
    assert most[0] < most[1] < most[2]
    assert torch.equal(world(exposure=2.0).heldout.target_NT, PLAIN.heldout.target_NT)


def test_wrong_labels_are_as_many_as_asked_for_and_uniform() -> None:
    half, all_wrong = (world(label_noise=share).train.target_NT for share in (0.5, 1.0))
    assert float((half != PLAIN.train.target_NT).float().mean()) == pytest.approx(0.5 * (1 - 1 / 40), abs=0.03)
    counts = torch.bincount(all_wrong.flatten(), minlength=PLAIN.catalog.leaves).double()
    assert float(((counts - 50) ** 2 / 50).sum()) < 75  # chi-square of 39 degrees of freedom: above with p = .0005


def test_a_reward_that_knows_is_on_items_of_the_true_preference() -> None:
    """Where the log is all noise, what is rewarded is preferred all the same: the rewarded items' probability shows it."""
    found = world(label_noise=1.0, reward_knows=0.5, reward_items=3)
    rewarded_NR = found.train.reward_NR
    knows_N = (rewarded_NR >= 0).all(1)
    assert float(knows_N.float().mean()) == pytest.approx(0.5, abs=0.04)
    assert all(len(set(row)) == 3 for row in rewarded_NR[knows_N].tolist())
    assert torch.equal(rewarded_NR[~knows_N, :1], found.train.target_NT[~knows_N])
    assert (rewarded_NR[~knows_N, 1:] == -1).all()
    preference_NY = found.log_preference(found.train.context_ND).exp()
    leaf_of_item = torch.from_numpy(found.catalog.leaf_of_item_I)
    by_leaf_NY = torch.zeros_like(preference_NY).index_add(1, leaf_of_item, preference_NY)
    known = by_leaf_NY[knows_N].gather(1, rewarded_NR[knows_N]).mean()
    logged = by_leaf_NY.gather(1, found.train.target_NT).mean()
    assert float(logged) == pytest.approx(1 / 40, rel=0.2)
    assert known > 1.5 * logged


def test_hit_rates_are_of_what_is_rewarded() -> None:
    found = world(reward_knows=0.5, reward_items=3)
    base = train_base(found, PolicyConfig(), 0.8, 0)
    probability_NY = base.policy.leaf_logprobs(found.train.x_ND).exp()
    expected = [
        sum(float(row[leaf]) for leaf in leaves if leaf >= 0)
        for row, leaves in zip(probability_NY, found.train.reward_NR, strict=True)
    ]
    assert hit_rates(found, base).tolist() == pytest.approx(expected, rel=1e-4)
    assert reward_probability(base.policy, found.train).tolist() == pytest.approx(expected, rel=1e-4)


def test_more_items_than_there_are_cannot_be_rewarded() -> None:
    with pytest.raises(WorldError, match=r"EnvironmentConfig\.reward_items: 41 must be at most 40 \(items\)"):
        dataclasses.replace(SMALL, reward_items=41)
    with pytest.raises(WorldError, match=r"EnvironmentConfig\.reward_knows: 1\.5"):
        EnvironmentConfig(reward_knows=1.5)


def test_fresh_prompts_have_targets_of_the_same_log() -> None:
    found = world(fresh_prompts=300, exposure=2.0)
    assert len(found.fresh.x_ND) == 300
    assert not torch.isin(found.fresh.x_ND, found.train.x_ND).any()
    popular = Counter(found.train.target_NT.flatten().tolist()).most_common(1)[0][0]
    assert Counter(found.fresh.target_NT.flatten().tolist()).most_common(1)[0][0] == popular
