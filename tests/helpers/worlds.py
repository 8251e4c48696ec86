"""Small worlds that several test files share."""

from functools import cache

from recast_sim.world.environment import Environment, EnvironmentConfig, make_environment
from recast_sim.world.policy import PolicyConfig, TreePolicy
from recast_sim.world.pretraining import train_base

SMALL = EnvironmentConfig(items=40, sizes=(4, 4, 4), dim=6, beta=1.5, train_prompts=256, heldout_prompts=128)


@cache
def small_environment(targets: int = 1) -> Environment:
    return make_environment(EnvironmentConfig(**{**SMALL.__dict__, "targets": targets}), seed=0)


@cache
def small_base(kind: str = "linear", convergence: float = 0.8) -> TreePolicy:
    config = PolicyConfig(kind=kind, width=8)  # type: ignore[arg-type]
    return train_base(small_environment(), config, convergence, seed=0).policy
