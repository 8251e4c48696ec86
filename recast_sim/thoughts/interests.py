"""Users with several interests: the sparse-hit environment with several of its prompts made into one.

Axes: N users, K interests, D context dimensions, T targets.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recast_sim.world.environment import Environment, EnvironmentConfig, WorldError, WorldPrompts, make_environment
from recast_sim.world.generators import torch_generator


@dataclass(frozen=True)
class InterestsEnvironment(Environment):
    """A drawn world whose contexts are those of a user's interests, one after the other."""

    def log_preference(self, context_ND: Tensor) -> Tensor:
        """The true log preference over items, (N, I): the mean of the preferences of all interests."""
        parts = context_ND.split(self.config.dim, dim=1)
        each = torch.stack([Environment.log_preference(self, part) for part in parts])
        return each.logsumexp(0) - math.log(len(parts))


def make_interests(config: EnvironmentConfig, interests: int, seed: int) -> InterestsEnvironment:
    """A world with as many users in each split as the config has prompts; each target comes from one interest, drawn uniformly.

    A user's several targets may be of several interests. With one interest this is `make_environment`'s world.

    Raises:
        WorldError: a reward that knows more than the log, for which a soft reward has no target to score.
    """
    if not config.reward_is_the_log:
        raise WorldError(
            f"EnvironmentConfig.reward_knows: {config.reward_knows:g} must be 0; a soft reward scores the log's own targets"
        )
    splits = ("train", "heldout", "validation", "fresh")
    counts = {f"{name}_prompts": interests * getattr(config, f"{name}_prompts") for name in splits}
    drawn = make_environment(replace(config, **counts), seed)
    generator = torch_generator(seed, "interests")
    users = {name: _users(getattr(drawn, name), interests, generator) for name in splits}
    return InterestsEnvironment(config, drawn.catalog, drawn.item_ID, drawn.log_popularity_I, **users)


def _users(prompts: WorldPrompts, interests: int, generator: torch.Generator) -> WorldPrompts:
    rows, targets = prompts.target_NT.shape
    users = rows // interests
    chosen_N1T = torch.randint(interests, (users, 1, targets), generator=generator)
    target_NT = prompts.target_NT.view(users, interests, targets).gather(1, chosen_N1T)[:, 0]
    x_ND, context_ND = (table.view(users, interests * table.shape[1]) for table in (prompts.x_ND, prompts.context_ND))
    return WorldPrompts(x_ND, target_NT, context_ND, target_NT)
