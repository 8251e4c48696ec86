"""How near the hardest miss of a group is to the target: what a contrast with it pushes down."""

import torch

from recast_sim.signal import SignalConfig, default_level_scores
from recast_sim.training.world_groups import roll_out
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy

_PROMPTS = 1024


@torch.no_grad()
def hardest_miss_levels(policy: TreePolicy, environment: Environment, group_size: int, seed: int) -> list[float]:
    """Shares of i.i.d. groups whose hardest miss shares 0, 1, .. L - 1 codes of its prefix with a target; groups without a miss
    are left out. On the first train prompts, one group each.
    """
    prompt_P = torch.arange(min(_PROMPTS, len(environment.train.x_ND)))
    generator = torch_generator(seed, "hardest misses")
    groups = roll_out(policy, environment, prompt_P, group_size, "iid", SignalConfig(), generator)
    hardest_P = groups.structural_PG.masked_fill(groups.rewards_PG > 0, -1.0).amax(1)
    hardest_P = hardest_P[hardest_P >= 0]
    scores_L = torch.tensor(default_level_scores(policy.levels)[:-1])
    return torch.isclose(hardest_P[:, None], scores_L).double().mean(0).tolist()
