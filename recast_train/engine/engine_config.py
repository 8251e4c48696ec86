"""What a recipe says about the engine, and what the launcher's environment must agree with."""

import os
from dataclasses import dataclass
from typing import Literal

from recast_sim.configio import Checked
from recast_train.model import TrainError, require


@dataclass(frozen=True)
class EngineConfig(Checked, error=TrainError):
    """How the work is spread. World size and rank are the launcher's (`accelerate launch`, `torchrun`).

    Attributes:
        strategy: "single" one process; "ddp" a whole model on every rank; "fsdp2" parameters, gradients and optimiser state
            sharded over the ranks. With one process all three are the same.
        precision: "bf16" computes in bfloat16 and keeps parameters and optimiser state in fp32.
    """

    strategy: Literal["single", "ddp", "fsdp2"] = "single"
    precision: Literal["fp32", "bf16"] = "fp32"


def launched_world(config: EngineConfig) -> int:
    """Number of processes that the launcher started, 1 without one.

    Raises:
        TrainError: the launcher's environment asks for something else than `config`.
    """
    environment = os.environ
    for variable, flag in (("ACCELERATE_USE_FSDP", "--use_fsdp"), ("ACCELERATE_USE_DEEPSPEED", "--use_deepspeed")):
        asked = environment.get(variable, "false")
        mend = f"the recipe says how to spread the model: launch without {flag} and set EngineConfig.strategy"
        require(asked.lower() == "false", variable, asked, mend)
    asked = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    mend = f"differs from EngineConfig.precision '{config.precision}'; launch without --mixed_precision"
    require(asked in ("no", config.precision), "ACCELERATE_MIXED_PRECISION", asked, mend)
    world = int(environment.get("WORLD_SIZE", "1"))
    mend = f"is for one process and the launcher started {world}; set it to 'ddp' or 'fsdp2', or start one process"
    require(world == 1 or config.strategy != "single", "EngineConfig.strategy", config.strategy, mend)
    return world
