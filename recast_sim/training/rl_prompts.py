"""Which prompts a step of RL sees."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator


def groups_of_prompt(config: TrainingConfig, environment: Environment) -> int:
    """Groups of a prompt in a batch: one, or one for each of its targets."""
    return environment.config.targets if config.every_target else 1


def prompts_of_step(
    config: TrainingConfig, environment: Environment, seed: int, step: int, attempt: int, generator: torch.Generator
) -> Tensor:
    """The train prompts of a batch, (P,), in an environment that `rl_environment` gave.

    Drawn with replacement; with `passes` the next ones of the pass, but for redraws.
    """
    rows = groups_of_prompt(config, environment)
    count, size = len(environment.train.x_ND) // rows, config.prompts_per_step
    if not config.passes or attempt:
        drawn_P = torch.randint(count, (size,), generator=generator)
    else:
        places = range((step - 1) * size, step * size)
        orders = {p: torch.randperm(count, generator=torch_generator(seed, "pass", p)) for p in {at // count for at in places}}
        drawn_P = torch.stack([orders[at // count][at % count] for at in places])
    return (rows * drawn_P[:, None] + torch.arange(rows)).flatten()


def rl_environment(environment: Environment, config: TrainingConfig) -> Environment:
    """The environment whose train prompts are those of RL: as many, `fresh_share` of them fresh.

    With `every_target` each stands once for each of its targets, one after the other.

    Raises:
        TrainingError: the environment has too few fresh prompts.
    """
    count, fresh_share = len(environment.train.x_ND), config.fresh_share
    fresh = round(fresh_share * count)
    if fresh > (there := len(environment.fresh.x_ND)):
        raise TrainingError(
            f"TrainingConfig.fresh_share: {fresh_share:g} of {count} prompts needs {fresh} fresh ones, the environment has "
            f"{there}; set environment.fresh_prompts"
        )
    train = environment.train.first(count - fresh).joined(environment.fresh.first(fresh))
    return replace(environment, train=train.by_target() if config.every_target else train)
