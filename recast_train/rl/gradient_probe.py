"""How noisy a batch's gradient is: the variance between groups, and how far two halves of the batch agree.

The gradient of group p is g_p = P * sum over its kept rows and their levels of coefficient * grad log pi, over all trainable
parameters: the mean over all P groups (0 for a group without a kept row) is minus the gradient of the batch's loss at the
on-policy point, without KL. Exact: one backward pass for each group that has rows, which costs less than the random projections
that it would take to tell the cosine from noise.

Axis letters: P groups (prompts), N kept rows.
"""

import torch
from torch import Tensor

from recast_sim.signal import UpdatePlan
from recast_train.model import PromptTokens, SidModel, beside, require
from recast_train.model.shared_prompts import packed_logprobs

FIGURES = ("gradient_variance", "gradient_norm_squared", "gradient_snr", "cosine_halves")


def probe_gradients(
    model: SidModel, prompts: PromptTokens, plan: UpdatePlan, leaf_N: Tensor, group_size: int, temperature: float = 1.0
) -> dict[str, float | None]:
    """Figures of a batch before its first optimiser step; parameters and their gradients stay as they are.

    Args:
        prompts: those of all P groups, also of those without a kept row. They, the plan and the leaves are on the CPU.

    Returns:
        gradient_variance: sum over groups of |g_p - mean|^2, over P - 1.
        gradient_norm_squared: |E g|^2 without bias (products of different groups alone); may fall below 0.
        gradient_snr: gradient_norm_squared / (gradient_variance / P), the signal-to-noise ratio of the batch's mean.
        cosine_halves: between the mean gradients of the even and of the odd groups.

    A figure that is not defined is None: all of them with one group, the ratio where the variance is 0, the cosine where a
    half's gradient is 0.

    Raises:
        TrainError: a model in training mode (dropout would be part of the noise).
    """
    require(not model.training, "model.training", model.training, "adds dropout to the gradients; call model.eval()")
    groups = len(prompts.tokens_PT)
    if groups == 1:
        return dict.fromkeys(FIGURES)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    halves = [[torch.zeros_like(parameter, dtype=torch.float32) for parameter in trainable] for _ in range(2)]
    squared, prompt_N = 0.0, plan.rows_N // group_size
    for group in prompt_N.unique().tolist():
        own = prompt_N == group
        first = torch.zeros(int(own.sum()), dtype=torch.int64)
        row_NL = packed_logprobs(model, prompts.take(prompt_N[own][:1]), first, leaf_N[own], temperature)
        total = groups * (beside(plan.coefficients_NL[own].to(row_NL.dtype), row_NL) * row_NL).sum()
        gradient = torch.autograd.grad(total, trainable, allow_unused=True, materialize_grads=True)
        squared += _sum([part.float().square().sum() for part in gradient])
        for sums, part in zip(halves[group % 2], gradient, strict=True):
            sums += part
    return _figures(squared, halves, groups)


def _sum(numbers: list[Tensor]) -> float:
    """In double precision, one after the other; a device is asked for all of them at once."""
    return sum(torch.stack(numbers).tolist(), 0.0)


def _figures(squared: float, halves: list[list[Tensor]], groups: int) -> dict[str, float | None]:
    def dot(left: list[Tensor], right: list[Tensor]) -> float:
        return _sum([(a * b).sum() for a, b in zip(left, right, strict=True)])

    even, odd, both = dot(halves[0], halves[0]), dot(halves[1], halves[1]), dot(halves[0], halves[1])
    mean_squared = (even + odd + 2 * both) / groups**2
    variance = (squared - groups * mean_squared) / (groups - 1)
    norm_squared = mean_squared - variance / groups
    snr = norm_squared * groups / variance if variance else None
    cosine = both / (even * odd) ** 0.5 if even and odd else None
    return dict(zip(FIGURES, (variance, norm_squared, snr, cosine), strict=True))
