"""Which prompts a step of RL sees."""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator


def prompts_of_step(
    count: int, config: TrainingConfig, seed: int, step: int, attempt: int, generator: torch.Generator
) -> Tensor:
    """The prompts of a batch, (P,): drawn with replacement; with `passes` the next ones of the pass, but for redraws."""
    size = config.prompts_per_step
    if not config.passes or attempt:
        return torch.randint(count, (size,), generator=generator)
    place_P = torch.arange((step - 1) * size, step * size)
    orders = {p: torch.randperm(count, generator=torch_generator(seed, "pass", p)) for p in {*(place_P // count).tolist()}}
    return torch.stack([orders[p][i] for p, i in zip((place_P // count).tolist(), (place_P % count).tolist(), strict=True)])


def rl_environment(environment: Environment, fresh_share: float) -> Environment:
    """The environment whose train prompts are those of RL: as many, the given share of them fresh.

    Raises:
        TrainingError: the environment has too few fresh prompts.
    """
    count = len(environment.train.x_ND)
    fresh = round(fresh_share * count)
    if fresh > (there := len(environment.fresh.x_ND)):
        raise TrainingError(
            f"TrainingConfig.fresh_share: {fresh_share:g} of {count} prompts needs {fresh} fresh ones, the environment has "
            f"{there}; set environment.fresh_prompts"
        )
    return replace(environment, train=environment.train.first(count - fresh).joined(environment.fresh.first(fresh)))
