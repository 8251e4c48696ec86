"""A world so small that every thought, SID and group can be listed one by one."""

import torch

from recast_sim.thoughts.interests import InterestsEnvironment, make_interests
from recast_sim.thoughts.latent_policy import LatentPolicy
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.generators import torch_generator

TINY = {"items": 5, "sizes": (2, 3), "dim": 2, "beta": 2.0, "train_prompts": 3, "heldout_prompts": 4, "validation_prompts": 1}


def tiny_world(interests: int = 2, seed: int = 0, **knobs) -> InterestsEnvironment:
    return make_interests(EnvironmentConfig(**(TINY | knobs)), interests, seed)


def sharp_policy(environment: InterestsEnvironment, thoughts: int = 2, seed: int = 0) -> LatentPolicy:
    """A float64 policy whose thoughts and items are far from even."""
    generator = torch_generator(seed, "sharp policy")
    policy = LatentPolicy(environment.catalog, environment.train.x_ND.shape[1], thoughts, generator).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return policy


def flat_gradient(policy: LatentPolicy, value: torch.Tensor) -> torch.Tensor:
    parts = torch.autograd.grad(value, list(policy.parameters()), materialize_grads=True, allow_unused=True, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])
