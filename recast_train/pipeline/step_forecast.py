"""A step of RL by phase, method by method, before the run is started."""

from collections.abc import Mapping
from typing import Any

from recast_sim.comparing import Method
from recast_sim.signal import Constructor
from recast_train.engine.engine_config import launched_world
from recast_train.pipeline.recipe import RealConfig, parse_methods
from recast_train.rl.rl_config import RlConfig
from recast_train.step_model.machine import Machine
from recast_train.step_model.net import Net
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_seconds import step_seconds

_BYTES = {"fp32": 4, "bf16": 2}


def step_forecast(config: RealConfig, net: Net, prompt: float, sizes: tuple[int, ...], machine: Machine) -> dict[str, Any]:
    """Seconds of one RL step of each method.

    Args:
        prompt: tokens of a prompt, on average.
        sizes: codes of each level.
    """
    steps = {method.name: method_step(config, method, net, prompt, sizes) for method in parse_methods(config.methods)}
    return {"machine": machine.name, "seconds": {name: _phases(config, name, of, machine) for name, of in steps.items()}}


def method_step(config: RealConfig, method: Method, net: Net, prompt: float, sizes: tuple[int, ...]) -> StepSetting:
    """The step of a method; it keeps as many rows as its constructor does at most."""
    rl: RlConfig = method.applied(config.rl)
    held = _BYTES[config.model.precision]
    sequences, rows = sequences_of(rl)
    return StepSetting(
        net,
        prompt=max(1, round(prompt)),
        response=len(sizes),
        group_size=rows,
        kept=kept_rows(method.constructor, rows),
        prompts=sequences,
        cards=launched_world(config.engine),
        thought=rl.rollout.thought.max_tokens,
        codes=round(sum(sizes) / len(sizes)),
        updates=rl.updates_per_batch,
        mini_batches=rl.mini_batches,
        reference=bool(rl.objective.kl),
        old=rl.updates_per_batch * rl.mini_batches > 1,
        recompute=config.model.gradient_checkpointing,
        pass_tokens=rl.micro_batch_tokens,
        sharded=config.engine.strategy == "fsdp2",
        held=held,
        computed=min(held, _BYTES[config.engine.precision]),
    )


def sequences_of(rl: RlConfig) -> tuple[int, int]:
    """Prompts with a thought of their own, or none, that a step computes, and the SIDs behind each."""
    alone = rl.thoughts.kind != "none"
    return (rl.prompts_per_step * rl.group_size, 1) if alone else (rl.prompts_per_step, rl.group_size)


def kept_rows(constructor: Constructor, group_size: int) -> int:
    """Rows of a group that reach the passes after the rewards, at most."""
    return min(int(constructor.width), group_size) if constructor.width.isdecimal() else group_size


def _phases(config: RealConfig, name: str, step: StepSetting, machine: Machine) -> Mapping[str, float]:
    (method,) = (one for one in parse_methods(config.methods) if one.name == name)
    seconds = step_seconds(step, machine)
    found = dict(seconds.computing) | {"communication": sum(seconds.sending.values())}
    if not method.constructor.rollouts:
        found |= {"rollout": 0.0, "communication": found["communication"] - seconds.sending["rollout"]}
    return found | {"step": sum(found.values())}
