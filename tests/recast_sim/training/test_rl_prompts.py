"""Which prompts RL sees, in which order, with which anchors; and steps on parts of a batch."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch
from worlds import SMALL, small_base, small_environment

from recast_sim.experiments.protocol import EvaluationLog
from recast_sim.signal import SignalConfig, get_constructor, plan_objective
from recast_sim.signal.groups import signal_of
from recast_sim.training.loop import train
from recast_sim.training.near_misses import hardest_miss_levels
from recast_sim.training.plan_update import _KeptRows, _mini_batches
from recast_sim.training.rl_prompts import prompts_of_step, rl_environment
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.training.world_groups import roll_out
from recast_sim.world.environment import make_environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.learning import Start

CONFIG = TrainingConfig(group_size=8, prompts_per_step=16, steps=4, evaluate_every=100)


class Visits(EvaluationLog):
    """A log that keeps the prompts of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[int] = []

    def groups(self, columns) -> None:
        self.prompts += columns["prompt"].tolist()


def visited(config: TrainingConfig) -> Visits:
    log = Visits()
    train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), config, 0, log)
    return log


def test_a_pass_sees_each_prompt_once_and_the_next_in_another_order() -> None:
    seen = visited(dataclasses.replace(CONFIG, passes=2.0)).prompts
    assert set(Counter(seen).values()) == {2}
    assert len(Counter(seen)) == 256
    assert sorted(seen[:256]) == list(range(256))
    assert seen[:256] != seen[256:]
    assert len(visited(dataclasses.replace(CONFIG, passes=0.25)).prompts) == 64
    assert dataclasses.replace(CONFIG, passes=1e-9).batches(256) == 1


def test_batches_that_cross_a_pass_lose_no_prompt() -> None:
    seen = visited(dataclasses.replace(CONFIG, passes=3.0, prompts_per_step=24)).prompts
    assert len(seen) == 32 * 24
    assert set(Counter(seen).values()) == {3}


def test_rl_prompts_are_train_prompts_then_fresh_ones() -> None:
    world = make_environment(dataclasses.replace(SMALL, fresh_prompts=128), 0)
    mixed = rl_environment(world, TrainingConfig(fresh_share=0.5))
    assert torch.equal(mixed.train.x_ND, torch.cat([world.train.x_ND[:128], world.fresh.x_ND]))
    assert torch.equal(mixed.train.reward_NR[128:], world.fresh.reward_NR)
    assert torch.equal(rl_environment(world, TrainingConfig()).train.target_NT, world.train.target_NT)
    with pytest.raises(TrainingError, match=r"fresh_share: 1 of 256 prompts needs 256 fresh ones, the environment has 128"):
        rl_environment(world, TrainingConfig(fresh_share=1.0))


def test_every_target_of_a_list_gets_a_group_of_its_own_and_hits_stay_hits_of_any() -> None:
    world = make_environment(dataclasses.replace(SMALL, targets=3), 0)
    config = dataclasses.replace(CONFIG, every_target=True)
    flat = rl_environment(world, config)
    assert torch.equal(flat.train.target_NT[3:6, 0], world.train.target_NT[1])
    assert torch.equal(flat.train.reward_NR[3:6], world.train.reward_NR[1].expand(3, -1))
    drawn = prompts_of_step(config, flat, 0, 1, 0, torch_generator(0)).view(16, 3)
    one = prompts_of_step(CONFIG, world, 0, 1, 0, torch_generator(0))
    assert torch.equal(drawn, 3 * one[:, None] + torch.arange(3))  # the same prompts as with one target
    in_order = dataclasses.replace(config, passes=1.0)
    seen = torch.cat([prompts_of_step(in_order, flat, 0, step, 0, torch_generator(step)) for step in range(1, 17)])
    assert torch.equal(seen.sort().values, torch.arange(3 * 256))
    log = EvaluationLog()
    train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), config, 0, log)  # one target: nothing new
    plain = EvaluationLog()
    train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), CONFIG, 0, plain)
    assert [row["log_likelihood"] for row in log.rows] == [row["log_likelihood"] for row in plain.rows]
    with pytest.raises(TrainingError, match="every_target: takes the log's targets"):
        dataclasses.replace(config, anchor_source="reward")


def test_graded_rewards_leave_hits_exact() -> None:
    world, policy, config = small_environment(), small_base(), SignalConfig(hit_above=0.5)
    plain, graded = (
        roll_out(policy, world, torch.arange(64), 8, "iid", config, torch_generator(0), near_miss_reward=value)
        for value in (0.0, 0.5)
    )
    hits = plain.rewards_PG > 0
    assert torch.equal(graded.rewards_PG[hits], plain.rewards_PG[hits])
    assert torch.equal(graded.rewards_PG[~hits], 0.5 * plain.structural_PG[~hits])
    assert float(graded.rewards_PG[~hits].max()) == pytest.approx(0.05)  # a tenth of it for all but the last code
    one, two = (signal_of(groups, get_constructor("grpo"), config, torch_generator(0)) for groups in (plain, graded))
    assert torch.equal(one.hits_before_P, two.hits_before_P)
    assert two.learnable_P.sum() > one.learnable_P.sum()  # near misses tell the rollouts of a dead group apart
    with pytest.raises(TrainingError, match=r"near_miss_reward: 0.5 is above signal.hit_above, 0.0"):
        TrainingConfig(near_miss_reward=0.5)


def test_shares_of_the_hardest_miss_are_those_of_the_groups() -> None:
    world, policy = small_environment(), small_base()
    shares = hardest_miss_levels(policy, world, 8, seed=3)
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(1)
    groups = roll_out(policy, world, torch.arange(256), 8, "iid", SignalConfig(), torch_generator(3, "hardest misses"))
    codes = torch.from_numpy(world.catalog.leaf_codes)
    counts = [0, 0, 0]
    for leaves, target in zip(groups.leaf_PG.tolist(), world.train.target_NT[:256, 0].tolist(), strict=True):
        depths = [int((codes[leaf] == codes[target]).long().cumprod(0).sum()) for leaf in leaves if leaf != target]
        counts[max(depths)] += bool(depths)
    assert shares == pytest.approx([count / sum(counts) for count in counts])


def test_anchors_come_from_the_log_or_from_what_is_rewarded() -> None:
    world = make_environment(dataclasses.replace(SMALL, label_noise=1.0, reward_knows=0.5, reward_items=3), 0)
    prompts = torch.arange(64)
    config = SignalConfig(anchor_choice="random")
    of_log, of_reward = (
        roll_out(small_base(), world, prompts, 8, "iid", config, torch_generator(0), anchor_source=source)
        for source in ("log", "reward")
    )
    assert torch.equal(of_log.anchor_leaf_P, world.train.target_NT[:64, 0])
    assert (of_reward.anchor_leaf_P[:, None] == world.train.reward_NR[:64]).any(1).all()
    assert not torch.equal(of_log.anchor_leaf_P, of_reward.anchor_leaf_P)
    assert torch.equal(of_log.rewards_PG, of_reward.rewards_PG)
    hit_PG = (of_log.leaf_PG[..., None] == world.train.reward_NR[:64, None]).any(2)
    assert torch.equal(of_log.rewards_PG > 0, hit_PG)


def test_an_unknown_source_of_anchors_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"TrainingConfig\.anchor_source: 'nowhere'"):
        dataclasses.replace(CONFIG, anchor_source="nowhere")


@pytest.mark.parametrize("normaliser", ["groups", "active_rows"])
@pytest.mark.parametrize("constructor", ["grpo", "recast", "sapo"])
def test_mini_batches_are_parts_of_the_whole_loss(constructor: str, normaliser: str) -> None:
    config, policy, world = SignalConfig(normaliser=normaliser), small_base(), small_environment()
    groups = roll_out(policy, world, torch.arange(32), 8, "iid", config, torch_generator(0))
    method = get_constructor(constructor)
    extras = {"sids_PGL": torch.from_numpy(world.catalog.leaf_codes)[groups.leaf_PG]} if method.level_wise else {}
    extras |= (
        {"targets_PTL": torch.from_numpy(world.catalog.leaf_codes)[world.train.target_NT[:32]]} if method.level_wise else {}
    )
    groups = dataclasses.replace(groups, extras={**groups.extras, **extras})
    signal = signal_of(groups, method, config, torch_generator(0))
    parts = _mini_batches(signal, 4)
    assert torch.equal(torch.cat([part.rows_N for part in parts]), signal.plan.rows_N)
    assert len(parts) <= 4
    losses = []
    for plan in (signal.plan, *parts):
        logprob_NL = _KeptRows(world, groups, signal, plan).logprobs(policy)
        losses.append(
            float(plan_objective(plan, logprob_NL, logprob_NL.detach() + 0.1, None, TrainingConfig().objective).loss.detach())
        )
    assert sum(losses[1:]) / 4 == pytest.approx(losses[0], abs=1e-6)


def test_mini_batches_make_as_many_steps_as_have_rows() -> None:
    log = visited(dataclasses.replace(CONFIG, constructor="sft", mini_batches=4, updates_per_batch=2))
    assert log.rows[-1]["optimiser_steps"] == 4 * 4 * 2
    sparse = visited(dataclasses.replace(CONFIG, constructor="boundary_only", mini_batches=16)).rows[-1]
    assert 0 < sparse["optimiser_steps"] < 4 * 16  # groups without a hit make no step


def test_the_rate_rises_over_the_warm_up() -> None:
    plain = dataclasses.replace(CONFIG, constructor="sft", optimiser="sgd", learning_rate=0.1, steps=1)
    policies = []
    for config in (plain, dataclasses.replace(plain, warm_up=10)):
        policies.append(copy.deepcopy(small_base()))
        train(policies[-1], Start(small_base(), small_environment()), config, 0, EvaluationLog())
    for whole, slow, base in zip(*(p.parameters() for p in (*policies, small_base())), strict=True):
        torch.testing.assert_close(slow - base, (whole - base) / 10, rtol=1e-3, atol=1e-7)
