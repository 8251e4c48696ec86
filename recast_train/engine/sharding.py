"""FSDP2: parameters, gradients and optimiser state of a model sharded over all ranks.

accelerate takes its own FSDP2 path on accelerators alone (on the CPU it would quietly run DDP) and only together with an
optimiser (a frozen reference has none); torch's `fully_shard` is the same everywhere.
"""

from typing import Any

import torch
from torch import nn


def shard(model: nn.Module, lm: Any, device: torch.device, world: int, bf16: bool) -> None:
    """Shard `model` in place, each decoder layer of its `lm` as one unit and the rest as another.

    Every unit is sharded again after its forward pass: between passes `parameters()` are the shards, whatever ran last.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (world,))
    layers = set(lm._no_split_modules)  # transformers' own list of the classes that stay in one piece
    units = [module for module in lm.modules() if type(module).__name__ in layers]
    for unit in (*units, model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        if device.type == "cpu" and isinstance(unit, FSDPModule):
            unit.set_force_sum_reduction_for_comms(True)  # gloo's average is recent
