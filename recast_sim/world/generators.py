"""Torch generators for the simulator, each named after what it draws."""

import torch

from recast_sim.runs import derive_seed


def torch_generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(seed, *names)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
