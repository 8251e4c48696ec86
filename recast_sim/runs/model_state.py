"""Saving and loading a model and its optimiser in a checkpoint folder: safetensors and JSON, never pickle.

The torch side of the run folder, apart from the rest so that reading runs needs no torch.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recast_sim.bounded import open_ordinary, read_json_file
from recast_sim.runs.reader import RunError
from recast_sim.runs.writer import latest_step


def save_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None, **meta: object) -> None:
    """Write `model.safetensors`, `optimiser.safetensors` and `meta.json` (JSON values only) into a folder."""
    write_tensors(folder, model.state_dict(), None if optimiser is None else _flat(optimiser), **meta)


def write_tensors(
    folder: Path, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor] | None = None, **meta: object
) -> None:
    """The files of `save_state` from tensors by name, such as the engine gathers them."""
    save_tensors(folder / "model.safetensors", model)
    if optimiser is not None:
        save_tensors(folder / "optimiser.safetensors", optimiser)
    (folder / "meta.json").write_text(json.dumps(meta, allow_nan=False))


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file. Raises OSError where the disk is full, as other writers do."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)|code: (\d+)", str(error))
        if code is None:
            raise
        number = int(code[1] or code[2])
        raise OSError(number, os.strerror(number), str(file)) from error


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
        raise damaged(folder, folder, _reason(error)) from error


def read_tensors(
    folder: Path, optimiser: bool = True, delete: Path | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Tensors of the model, of its optimiser ({} unless asked for), and the meta values of a checkpoint folder, on the CPU.

    Raises:
        RunError: a missing or damaged file; it says to `delete` a folder (default this one), so that a resumed run writes it
            anew.
    """
    remade = delete or folder
    slots = load_tensors(folder / "optimiser.safetensors", remade) if optimiser else {}
    return load_tensors(folder / "model.safetensors", remade), slots, _read_meta(folder / "meta.json", remade)


def load_tensors(file: Path, delete: Path) -> dict[str, Tensor]:
    """One safetensors file, on the CPU. Raises RunError where it is missing or damaged."""
    try:
        with open_ordinary(file, RunError):
            return load_file(file)
    except (OSError, RunError, SafetensorError) as error:
        raise damaged(file, delete, _reason(error)) from error


def damaged(file: Path, delete: Path, reason: str) -> RunError:
    """The error about a file that a resumed run makes anew once `delete` is gone."""
    return RunError(f"{file}: checkpoint does not load: {reason}; delete {delete}, then --resume goes on from what is left")


def _read_meta(file: Path, delete: Path) -> dict[str, Any]:
    try:
        meta = read_json_file(file, RunError)
    except (OSError, ValueError) as error:
        raise damaged(file, delete, _reason(error)) from error
    if not isinstance(meta, dict):
        raise damaged(file, delete, "it holds no JSON object")
    return meta


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def latest_checkpoint(run: Path) -> Path | None:
    """Folder of the newest whole checkpoint of a run, or None."""
    step = latest_step(run)
    return run / "checkpoints" / f"step-{step:08d}" if step else None


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
