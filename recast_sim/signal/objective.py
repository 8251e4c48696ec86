"""The loss of an update plan: the clipped, KL-regularised surrogate, token by token, summed over a row's tokens.

Axes: N kept rows, L tokens of a row. Simulator and trainer share it, so that weights and normaliser mean one thing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recast_sim.signal.plan import UpdatePlan
from recast_sim.signal.signal_config import Real, SignalError, check_numbers


@dataclass(frozen=True)
class ObjectiveConfig:
    """Clip and KL of the policy's objective (PPO, arXiv 1707.06347, with the asymmetric clip of DAPO, arXiv 2503.14476).

    Attributes:
        clip_low: the ratio of new to old probability counts down to 1 - clip_low.
        clip_high: and up to 1 + clip_high (OpenOneRec: 0.2 and 0.28).
        kl: weight of the estimated KL divergence from the start.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    clip_low: Real = 0.2
    clip_high: Real = 0.28
    kl: Real = 0.0

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in ("clip_low", "clip_high", "kl"):
            if not getattr(self, name) >= 0:
                raise SignalError(f"ObjectiveConfig.{name}: {getattr(self, name)} must be 0 or more")


@dataclass(frozen=True)
class Objective:
    """A differentiable `loss`, and its `figures` (2,), which stay where the loss is: whoever reads them waits for the device.

    They are `kl`, the mean estimate of a row (nats), and `clip_share`, the share of tokens where the clip binds.
    """

    loss: Tensor
    figures: Tensor

    @property
    def kl(self) -> float:
        return float(self.figures[0])

    @property
    def clip_share(self) -> float:
        return float(self.figures[1])


def plan_objective(
    plan: UpdatePlan, new_NL: Tensor, old_NL: Tensor, reference_NL: Tensor | None, config: ObjectiveConfig
) -> Objective:
    """Loss of the kept rows from their token log-probabilities under the new, the old and the reference policy.

    Raises:
        SignalError: `config.kl` is not 0 and there is no reference.
    """
    surrogate_NL, binds_NL = clipped_surrogate(new_NL, old_NL, plan.advantages_NL, config.clip_low, config.clip_high)
    total = (plan.weights_N[:, None] * surrogate_NL).sum()
    kl = total.new_zeros(())
    if config.kl:
        if reference_NL is None:
            raise SignalError(f"reference_NL: missing; kl is {config.kl}, pass the reference policy's log-probabilities")
        kl_NL = low_variance_kl(new_NL, reference_NL)
        total, kl = total + config.kl * kl_NL.sum(), kl_NL.detach().sum(1).mean()
    return Objective(total / plan.normaliser, torch.stack([kl, binds_NL.float().mean().to(kl.dtype)]))


def clipped_surrogate(
    new_NL: Tensor, old_NL: Tensor, advantages_NL: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic token loss -min(ratio A, clip(ratio) A) (arXiv 1707.06347), and where the clip binds; both (N, L).

    `advantages_NL` has a column a level, or one for all of them.
    """
    ratio = (new_NL - old_NL).exp()
    free, clipped = ratio * advantages_NL, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages_NL
    return -torch.minimum(free, clipped), clipped < free


def low_variance_kl(new_NL: Tensor, reference_NL: Tensor) -> Tensor:
    """Token-wise estimate of KL(new || reference) that is never negative (k3): exp(d) - d - 1, d = reference - new."""
    gap = reference_NL - new_NL
    return gap.exp() - gap - 1
