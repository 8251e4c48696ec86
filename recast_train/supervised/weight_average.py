"""A running mean of a model's weights over training steps, kept among the optimiser's slots.

So a checkpoint holds it, and it is sharded, gathered and restored as the optimiser's own slots are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

_SLOT = "average"


@dataclass(frozen=True)
class WeightAverage:
    """mean <- d mean + (1 - d) weights after each step, d = min(decay, (1 + step) / (10 + step)); decay 0 keeps no mean.

    The mean of the iterates has less noise than the last one (Polyak and Juditsky 1992); the rising d forgets the first ones,
    as TensorFlow's ExponentialMovingAverage does with `num_updates`.
    """

    optimiser: torch.optim.Optimizer
    decay: float

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights of `step`, counted from 1, behind the optimiser's own step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for weight in self._weights():
            slots = self.optimiser.state[weight]
            if _SLOT in slots:
                slots[_SLOT].lerp_(weight, 1 - decay)
            else:
                slots[_SLOT] = weight.detach().clone()

    @contextmanager
    def in_the_model(self) -> Iterator[None]:
        """The model has the mean for its weights inside this context, where there is one."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight in self._weights():
            slots = self.optimiser.state.get(weight, {})
            if _SLOT in slots:
                kept = weight.detach().clone()
                weight.copy_(slots[_SLOT])
                slots[_SLOT].copy_(kept)

    def _weights(self) -> Iterator[Tensor]:
        return (weight for group in self.optimiser.param_groups for weight in group["params"])
