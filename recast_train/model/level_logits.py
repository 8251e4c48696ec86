"""Logits of each level's tokens, with one gradient of the output matrix for all levels.

Slices of the matrix would each bring a gradient of the whole vocabulary's size, to be added up. Axis letters: C codes of a
level, D hidden width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def level_logits(weight: Tensor, offset: Sequence[int], sizes: Sequence[int], hidden: Sequence[Tensor]) -> list[Tensor]:
    """Logits (..., C) in fp32 of the tokens offset..offset + C - 1 of each level from its own hidden states (..., D).

    `weight` is the output matrix; it may be of another type than the hidden states, and autocast does not change the result.
    """
    spans = [(start, start + size) for start, size in zip(offset, sizes, strict=True)]
    return list(_LevelLogits.apply(weight, spans, *(states.float() for states in hidden)))  # pyright: ignore[reportArgumentType]


class _LevelLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, spans: list[tuple[int, int]], *hidden: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight, *hidden)
        ctx.spans = spans
        with torch.autocast(weight.device.type, enabled=False):
            return tuple(states @ weight[a:b].float().T for (a, b), states in zip(spans, hidden, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *hidden = ctx.saved_tensors
        whole = torch.zeros_like(weight) if ctx.needs_input_grad[0] else None
        back: list[Tensor | None] = []
        for (a, b), states, gradient, wanted in zip(ctx.spans, hidden, gradients, ctx.needs_input_grad[2:], strict=True):
            if whole is not None:
                part_CD = gradient.flatten(0, -2).T @ states.flatten(0, -2)
                whole[a:b] += part_CD.to(whole.dtype)
            back.append(gradient @ weight[a:b].float() if wanted else None)
        return whole, None, *back
