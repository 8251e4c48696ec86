"""Rollout groups of the synthetic world, for one step of training or for analysis. Axes: P prompts, G rollouts, T targets."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from recast_sim.signal import Constructor, SignalConfig, choose_anchor
from recast_sim.signal.groups import ScoredGroups, join, redraw, score_leaves, signal_of
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import Sampler, sample, sample_behind

AnchorSource = Literal["log", "reward"]


def roll_out(
    policy: TreePolicy,
    environment: Environment,
    prompt_P: Tensor,
    group_size: int,
    sampler: Sampler,
    config: SignalConfig,
    generator: torch.Generator,
    hint_levels: int = 0,
    anchor_source: AnchorSource = "log",
    near_miss_reward: float = 0.0,
) -> ScoredGroups:
    """Sample a group for each of the given train prompts and score it on the ids of what is rewarded.

    With `hint_levels` every rollout is given that many codes of the prompt's first target and drawn i.i.d. behind them.
    Anchors come from the log's targets, or from what is rewarded. A miss gets `near_miss_reward` times its structural score.
    """
    train = environment.train
    x, rewarded_PR = train.x_ND[prompt_P], train.reward_NR[prompt_P]
    targets_PT = train.target_NT[prompt_P] if anchor_source == "log" else rewarded_PR
    there_PT = targets_PT >= 0
    if hint_levels:
        rollouts = sample_behind(policy, x, targets_PT[:, 0], hint_levels, group_size, generator)
    else:
        rollouts = sample(policy, x, group_size, sampler, generator)
    codes_YL = torch.from_numpy(environment.catalog.leaf_codes)
    with torch.no_grad():
        target_logprob_PTL = policy.path_logprobs(x, targets_PT.clamp(min=0))
    target_logprob_PT = target_logprob_PTL.sum(2)
    chosen_P1 = choose_anchor(there_PT, config.anchor_choice, target_logprob_PT, generator)[:, None]
    rewards_PG, structural_PG = score_leaves(codes_YL, rollouts.leaf_PG, rewarded_PR)
    return ScoredGroups(
        prompt_P=prompt_P,
        leaf_PG=rollouts.leaf_PG,
        logprob_PG=rollouts.logprob_PG,
        valid_PG=rollouts.valid_PG,
        rewards_PG=torch.where(rewards_PG > 0, rewards_PG, near_miss_reward * structural_PG),
        structural_PG=structural_PG,
        anchor_leaf_P=targets_PT.gather(1, chosen_P1)[:, 0],
        levels=policy.levels,
        drawn=rollouts.leaf_PG.numel(),
        extras={
            "anchor_logprob_P": target_logprob_PT.gather(1, chosen_P1)[:, 0],
            "anchor_logprob_PL": target_logprob_PTL[torch.arange(len(prompt_P)), chosen_P1[:, 0]],
        },
    )


def draw_groups(
    draw: Callable[[int], ScoredGroups],
    constructor: Constructor,
    config: SignalConfig,
    groups: int,
    max_draws: int,
    seed: int,
) -> ScoredGroups:
    """Groups for one step. A constructor that redraws gets only groups it accepts, from at most `max_draws` draws.

    Args:
        draw: gives the batch of the n-th attempt.
        seed: of the random ties in the redraw decision.
    """
    if not constructor.redraws:
        return draw(0)

    def refused(attempt: int, part: ScoredGroups) -> Tensor:
        return signal_of(part, constructor, config, torch_generator(seed, "redraw", attempt)).redraw_P

    return join(redraw(draw, refused, groups, max_draws), groups)
