"""What enters the signal module is checked here: one fast pass a table, and a search for the culprit only where it fails."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recast_sim.signal.signal_config import SignalError


def as_tensor(value: Any, name: str, device: torch.device | None = None) -> Tensor:
    """A contiguous copy of `value` as a tensor without gradient.

    Raises:
        SignalError: `value` is no table of numbers (a ragged list, text); names the argument.
    """
    try:
        if isinstance(value, np.ndarray):  # any strides, byte order and write flag
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        tensor = torch.as_tensor(value, device=device).detach()
        return tensor.clone(memory_format=torch.contiguous_format)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(f"{name}: {type(value).__name__} is not a table of numbers: {error}") from error


def shaped(tensor: Tensor, name: str, shape: Sequence[int | None]) -> Tensor:
    """The tensor. Raises SignalError naming the argument where its shape is another; None is any length of 1 or more."""
    if tensor.shape == shape:
        return tensor
    fits = len(tensor.shape) == len(shape) and all(
        have == want if want is not None else have > 0 for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise SignalError(f"{name}: shape {tuple(tensor.shape)} does not fit; expected ({wanted}{',' * (len(shape) == 1)})")
    return tensor


def bools(value: Any, name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """A bool tensor of a shape."""
    tensor = as_tensor(value, name, device)
    if tensor.dtype != torch.bool:
        raise SignalError(f"{name}: dtype {tensor.dtype} must be bool")
    return shaped(tensor, name, shape)


def numbers(value: Any, name: str, like: Tensor) -> Tensor:
    """`value` with shape, dtype and device of `like`."""
    return shaped(as_tensor(value, name, like.device).to(like.dtype), name, like.shape)


def codes(value: Any, name: str, shape: Sequence[int | None], device: torch.device) -> Tensor:
    """Integer codes as int64 of a shape; where three axes are wanted, two stand for one row on the middle axis."""
    tensor = as_tensor(value, name, device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise SignalError(f"{name}: dtype {tensor.dtype} must be whole numbers, the codes of semantic IDs")
    if len(shape) == 3 and shape[1] is None and tensor.ndim == 2:
        tensor = tensor[:, None]
    return shaped(tensor, name, shape).long()


def valid_rows(value: Any, like_PG: Tensor) -> Tensor:
    """The mask of valid rows, of the shape and device of `like_PG`. Raises SignalError for a group without one."""
    if value is None:
        return torch.ones_like(like_PG, dtype=torch.bool)
    valid = bools(value, "valid_PG", like_PG.shape, like_PG.device)
    if not bool((filled := valid.any(1)).all()):
        raise SignalError(
            f"valid_PG: prompt {int((~filled).nonzero()[0])} has no valid rollout; drop the prompt or keep one row"
        )
    return valid


def finite(table: Tensor, name: str, valid_PG: Tensor, squares: bool = False) -> Tensor:
    """The table, (P, G) or (P, G, L), with 0 in rows that are not valid.

    Raises:
        SignalError: another row that is not finite, or, if `squares`, one so large that a sum of squares may overflow.
    """
    filled = _filled(table, valid_PG)
    # a sum of squares is finite only where all terms are; one that overflows is looked into
    total = (filled.flatten() @ filled.flatten()) if squares else filled.sum()
    if math.isfinite(total.item()):
        return filled
    if bool((bad := ~filled.isfinite()).any()):
        p, g, *_ = bad.nonzero()[0].tolist()
        raise SignalError(
            f"{name}: prompt {p}, rollout {g} is {table[p, g].tolist()}; values must be finite: "
            "fix their source or mark the row in valid_PG"
        )
    if squares:
        p, g = divmod(int(filled.abs().argmax()), filled.shape[1])
        raise SignalError(
            f"{name}: prompt {p}, rollout {g} is {table[p, g].item():g}, and squares of that size overflow {table.dtype}; "
            "rescale the rewards, or pass float64"
        )
    return filled


def scores(table_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Structural scores with 0 in rows that are not valid. Raises SignalError for another row outside [0, 1]."""
    filled = _filled(table_PG, valid_PG)
    low, high = (end.item() for end in filled.aminmax())  # NaN where one is
    if not (low >= 0 and high <= 1):
        finite(table_PG, "structural_PG", valid_PG)
        p, g = ((filled < 0) | (filled > 1)).nonzero()[0].tolist()
        raise SignalError(f"structural_PG: prompt {p}, rollout {g} is {filled[p, g].item():g}; scores must lie in [0, 1]")
    return filled


def finite_prompts(tensor_P: Tensor, name: str) -> Tensor:
    """The numbers. Raises SignalError for a prompt whose number is not finite."""
    if bool((bad := ~tensor_P.isfinite()).any()):
        p = int(bad.nonzero()[0])
        raise SignalError(f"{name}: prompt {p} is {tensor_P[p].item()}; values must be finite")
    return tensor_P


def _filled(table: Tensor, valid_PG: Tensor) -> Tensor:
    return table.masked_fill(~valid_PG.view(*valid_PG.shape, *[1] * (table.ndim - 2)), 0.0)
