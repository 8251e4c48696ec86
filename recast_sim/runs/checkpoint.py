"""Saving and loading a model and its optimiser in a checkpoint folder: safetensors and JSON, never pickle.

The torch side of the run folder, apart from the rest so that reading runs needs no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recast_sim.runs.reader import RunError
from recast_sim.runs.writer import latest_step


def save_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None, **meta: object) -> None:
    """Write `model.safetensors`, `optimiser.safetensors` and `meta.json` (JSON values only) into a folder."""
    write_tensors(folder, model.state_dict(), None if optimiser is None else _flat(optimiser), **meta)


def write_tensors(
    folder: Path, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor] | None = None, **meta: object
) -> None:
    """The files of `save_state` from tensors by name, such as the engine gathers them."""
    save_file({name: tensor.contiguous() for name, tensor in model.items()}, folder / "model.safetensors")
    if optimiser is not None:
        save_file({name: tensor.contiguous() for name, tensor in optimiser.items()}, folder / "optimiser.safetensors")
    (folder / "meta.json").write_text(json.dumps(meta, allow_nan=False))


def load_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> dict[str, object]:
    """Read what `save_state` wrote into `model` and `optimiser`; returns the meta values.

    Raises:
        RunError: a missing or damaged file, or tensors that do not fit the model.
    """
    tensors, slots, meta = read_tensors(folder, optimiser is not None)
    try:
        model.load_state_dict(tensors)
        if optimiser is not None:
            _unflatten(optimiser, slots)
        return meta
    except (RuntimeError, ValueError, KeyError) as error:
        raise _unreadable(folder, error) from error


def read_tensors(folder: Path, optimiser: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, object]]:
    """Tensors of the model, of its optimiser ({} unless asked for), and the meta values of a checkpoint folder, on the CPU.

    Raises:
        RunError: a missing or damaged file.
    """
    try:
        slots = load_file(folder / "optimiser.safetensors") if optimiser else {}
        return load_file(folder / "model.safetensors"), slots, json.loads((folder / "meta.json").read_text())
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise _unreadable(folder, error) from error


def latest_checkpoint(run: Path) -> Path | None:
    """Folder of the newest whole checkpoint of a run, or None."""
    step = latest_step(run)
    return run / "checkpoints" / f"step-{step:08d}" if step else None


def _unreadable(folder: Path, error: Exception) -> RunError:
    return RunError(f"{folder}: checkpoint does not load: {str(error).splitlines()[0]}")


def _flat(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": tensor.contiguous() for index, slot in state.items() for name, tensor in slot.items()}


def _unflatten(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    whole = optimiser.state_dict()
    whole["state"] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        whole["state"].setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict(whole)
