"""Logits of each level's tokens, with one gradient of the output matrix for all levels, and that one at the end of a pass.

Slices of the matrix would each bring a gradient of the whole vocabulary's size, to be added up. And autograd would make it
where the backward pass begins, beside all activations. It takes the nodes of a graph that are ready in the opposite order of
their making: a node that was made before the LM's layers comes after them. Axis letters: C codes of a level, D hidden width.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

Rows = slice | Tensor  # of the matrix: those of a level's tokens
_Part = tuple[Rows, tuple[Tensor, ...]]  # rows of the matrix, and factors of their gradient (C, D)


class OutputMatrix:
    """The output matrix for one call of `level_logits`; its gradient comes after those of what is computed from here on."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()
        self.parts: list[_Part] = []
        self.ticket: Tensor = _Gradient.apply(weight, self.parts)  # pyright: ignore[reportAttributeAccessIssue]


def level_logits(matrix: OutputMatrix, rows: Sequence[Rows], hidden: Sequence[Tensor]) -> list[Tensor]:
    """Logits (..., C) in fp32 of the tokens `rows` of each level from its own hidden states (..., D).

    The matrix may be of another type than the hidden states, and autocast does not change the result.
    """
    states = (states.float() for states in hidden)
    return list(_LevelLogits.apply(matrix.ticket, matrix.weight, rows, matrix.parts, *states))  # pyright: ignore[reportArgumentType]


class _LevelLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, ticket: Tensor, weight: Tensor, rows: Sequence[Rows], parts: list[_Part], *hidden: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *hidden)
        ctx.rows, ctx.parts = rows, parts
        with torch.autocast(weight.device.type, enabled=False):
            return tuple(states @ weight[of].float().T for of, states in zip(rows, hidden, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *hidden = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            ctx.parts[:] = [(of, _factors(g, states)) for of, g, states in zip(ctx.rows, gradients, hidden, strict=True)]
        back = [
            gradient @ weight[of].float() if wanted else None
            for of, gradient, wanted in zip(ctx.rows, gradients, ctx.needs_input_grad[4:], strict=True)
        ]
        return gradients[0].new_zeros(()), None, None, None, *back


class _Gradient(torch.autograd.Function):
    """A number without meaning whose gradient is that of the matrix."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, parts: list[_Part]) -> Tensor:
        ctx.parts = parts
        ctx.save_for_backward(weight)
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        whole = torch.zeros_like(ctx.saved_tensors[0])
        for of, factors in ctx.parts:
            own = reduce(torch.matmul, factors).to(whole.dtype)
            if isinstance(of, slice):
                whole[of] += own
            else:
                whole.index_add_(0, of, own)  # a token may be there twice: that of a code without an item, with gradient 0
        ctx.parts.clear()
        return whole, None


def _factors(gradient: Tensor, states: Tensor) -> tuple[Tensor, ...]:
    """Gradient of logits (C, N) and states (N, D), or their product where that is smaller."""
    left, right = gradient.flatten(0, -2).T, states.flatten(0, -2)
    return (left @ right,) if len(right) > right.shape[1] else (left, right)
