"""What enters the signal module is checked here: one fast pass a table, and a search for the culprit only where it fails."""

import math
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.signal_config import SignalError

_BITS = {torch.float32: (torch.int32, 0x3F800000), torch.float64: (torch.int64, 0x3FF0000000000000)}  # and those of 1.0


def as_tensor(value: Any, name: str, device: torch.device | None = None) -> Tensor:
    """`value` as a tensor without gradient. Raises SignalError naming the argument where it is none (ragged lists, text)."""
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(f"{name}: {type(value).__name__} is no table of numbers: {error}") from error
    return tensor.detach() if tensor.requires_grad else tensor


def check_shape(tensor: Tensor, name: str, shape: torch.Size) -> None:
    """Raise SignalError naming the argument where the shape is another."""
    if tensor.shape != shape:
        raise SignalError(f"{name}: shape {tuple(tensor.shape)} does not fit; expected {tuple(shape)}")


def bools(value: Any, name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """A bool tensor of a shape."""
    tensor = as_tensor(value, name, device)
    if tensor.dtype != torch.bool:
        raise SignalError(f"{name}: dtype {tensor.dtype} must be bool")
    check_shape(tensor, name, shape)
    return tensor


def numbers(value: Any, name: str, like: Tensor) -> Tensor:
    """`value` with shape, dtype and device of `like`."""
    tensor = as_tensor(value, name, like.device).to(like.dtype)
    check_shape(tensor, name, like.shape)
    return tensor


def valid_rows(value: Any, all_PG: Tensor) -> Tensor:
    """The mask of valid rows: `all_PG` itself where it leaves no row out. Raises SignalError for a group without one."""
    if value is None:
        return all_PG
    valid = bools(value, "valid_PG", all_PG.shape, all_PG.device)
    if int(torch.count_nonzero(valid)) == valid.numel():
        return all_PG
    if not bool((filled := valid.any(1)).all()):
        raise SignalError(
            f"valid_PG: prompt {int((~filled).nonzero()[0])} has no valid rollout; drop the prompt or keep one row"
        )
    return valid


def finite(tensor_PG: Tensor, name: str, valid_PG: Tensor, all_PG: Tensor) -> Tensor:
    """The table with 0 in rows that are not valid. Raises SignalError for another row that is not finite."""
    filled = _filled(tensor_PG, valid_PG, all_PG)
    # a sum is finite only where all its terms are; one that overflows is looked into
    if not math.isfinite(filled.sum().item()) and bool((bad := ~filled.isfinite()).any()):
        p, g = bad.nonzero()[0].tolist()
        raise SignalError(
            f"{name}: prompt {p}, rollout {g} is {tensor_PG[p, g].item()}; values must be finite: "
            "mend their source or mark the row in valid_PG"
        )
    return filled


def scores(tensor_PG: Tensor, valid_PG: Tensor, all_PG: Tensor) -> Tensor:
    """Structural scores with 0 in rows that are not valid. Raises SignalError for another row outside [0, 1]."""
    filled = _filled(tensor_PG, valid_PG, all_PG)
    integer, one = _BITS[filled.dtype]
    low, high = filled.view(integer).aminmax()
    # the bits of floats from 0 to 1 are ordered like them, and those of NaN, of -0 and of all others lie outside
    if low.item() < 0 or high.item() > one:
        finite(tensor_PG, "structural_PG", valid_PG, all_PG)
        if bool((bad := (filled < 0) | (filled > 1)).any()):
            p, g = bad.nonzero()[0].tolist()
            raise SignalError(f"structural_PG: prompt {p}, rollout {g} is {filled[p, g].item():g}; scores must lie in [0, 1]")
    return filled


def finite_prompts(tensor_P: Tensor, name: str) -> Tensor:
    """The numbers. Raises SignalError for a prompt whose number is not finite."""
    if bool((bad := ~tensor_P.isfinite()).any()):
        p = int(bad.nonzero()[0])
        raise SignalError(f"{name}: prompt {p} is {tensor_P[p].item()}; values must be finite")
    return tensor_P


def _filled(tensor_PG: Tensor, valid_PG: Tensor, all_PG: Tensor) -> Tensor:
    return tensor_PG if valid_PG is all_PG else tensor_PG.masked_fill(~valid_PG, 0.0)
