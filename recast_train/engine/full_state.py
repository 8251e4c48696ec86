"""A model and its optimiser as plain tensors, the same whatever strategy and number of ranks they were trained with."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """Whole fp32 tensors on the CPU, on rank 0; empty on the others.

    Attributes:
        model: by the names of the model before it was wrapped.
        optimiser: by "NAME.SLOT" (`lm.lm_head.weight.exp_avg`); empty before the first step. Learning rates are not in it.
    """

    model: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Tensor] = field(default_factory=dict)


def gather_state(model: nn.Module, optimiser: torch.optim.Optimizer | None) -> State:
    """The state on rank 0, copied. All ranks call it."""
    from torch.distributed.checkpoint import state_dict as helpers

    options = helpers.StateDictOptions(full_state_dict=True, cpu_offload=True)
    tensors: dict[str, Any] = helpers.get_model_state_dict(model, options=options)
    slots: Any = {}
    if optimiser is not None and optimiser.state:  # the helper would take a first step on an optimiser that took none
        slots = helpers.get_optimizer_state_dict(model, optimiser, options=options).get("state", {})
    flat = {f"{name}.{slot}": value for name, slot_of in slots.items() for slot, value in slot_of.items()}
    return State(_copied(tensors), _copied(flat))


def scatter_state(
    state: State, model: nn.Module, optimiser: torch.optim.Optimizer | None, names: list[str], world: int
) -> None:
    """Put rank 0's `state` into the model and optimiser of every rank. All ranks call it.

    `names` are those of the optimiser's parameters before they were wrapped, in its order; empty where rank 0's state has
    none for an optimiser, which then starts anew.
    """
    from torch.distributed.checkpoint import state_dict as helpers

    options = helpers.StateDictOptions(full_state_dict=True, broadcast_from_rank0=world > 1)
    tensors: Any = state.model
    helpers.set_model_state_dict(model, tensors, options=options)
    if optimiser is None:
        return
    optimiser.zero_grad()
    optimiser.state.clear()
    if names:
        helpers.set_optimizer_state_dict(model, optimiser, _nested(state, optimiser, names), options=options)


def _copied(tensors: dict[str, Any]) -> dict[str, Tensor]:
    for name, tensor in tensors.items():  # one at a time: a large model is not held twice
        tensors[name] = tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
    return tensors


def _nested(state: State, optimiser: torch.optim.Optimizer, names: list[str]) -> dict[str, Any]:
    """torch's shape of an optimiser's state, with the settings that the optimiser has now; {} on ranks without one."""
    if not state.optimiser:
        return {}
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.optimiser.items():
        name, slot = key.rsplit(".", 1)
        slots.setdefault(name, {})[slot] = tensor
    rest, groups = iter(names), []
    for group in optimiser.param_groups:
        groups.append({**group, "params": [next(rest) for _ in group["params"]]})
    return {"state": slots, "param_groups": groups}
