"""The distributed engine: one process, DDP or FSDP2, on one node or several, in fp32 or bf16. Alone imports accelerate.

    with Engine(EngineConfig("ddp"), "cuda") as engine:
        model = engine.prepare(model)                       # then build the optimiser on model.parameters()
        rows = split_plan(plan, G, engine.share(P))
        loss, norm = engine.descend(model, rows.objective(...).loss, optimiser)

A prepared model is only ever called, `model(compute, *arguments)` (`SidModel.forward`), and by all ranks equally often.
"""

from recast_train.engine.devices import Device, chosen_device, device_words
from recast_train.engine.engine import Engine
from recast_train.engine.engine_config import EngineConfig
from recast_train.engine.full_state import State
from recast_train.engine.rank_rows import OwnRows, split_plan
from recast_train.engine.recorder import Recorder

__all__ = ["Device", "Engine", "EngineConfig", "OwnRows", "Recorder", "State", "chosen_device", "device_words", "split_plan"]
