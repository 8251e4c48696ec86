"""Saving and loading a model and its optimiser in a checkpoint folder: safetensors and JSON, never pickle.

The torch side of the run folder, apart from the rest so that reading runs needs no torch.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recast_sim.runs.reader import RunError
from recast_sim.runs.writer import latest_step


def save_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None, **meta: object) -> None:
    """Write `model.safetensors`, `optimiser.safetensors` and `meta.json` (JSON values only) into a folder."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    if optimiser is not None:
        save_file(_flat(optimiser), folder / "optimiser.safetensors")
    (folder / "meta.json").write_text(json.dumps(meta, allow_nan=False))


def load_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> dict[str, object]:
    """Read what `save_state` wrote into `model` and `optimiser`; returns the meta values.

    Raises:
        RunError: a missing or damaged file, or tensors that do not fit the model.
    """
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
        if optimiser is not None:
            _unflatten(optimiser, load_file(folder / "optimiser.safetensors"))
        return json.loads((folder / "meta.json").read_text())
    except (OSError, SafetensorError, RuntimeError, json.JSONDecodeError, KeyError) as error:
        raise RunError(f"{folder}: checkpoint does not load: {str(error).splitlines()[0]}") from error


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
