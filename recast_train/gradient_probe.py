"""How noisy a batch's gradient is: the variance between groups and the agreement of two halves, by random projection.

The gradient of group p is g_p = P * sum over its kept rows of coefficient * grad log pi(row), over all trainable parameters:
the mean over all P groups (0 for a group without a kept row) is minus the gradient of the batch's loss at the on-policy point,
without KL. Only projections u . g_p on Gaussian directions u ~ N(0, I) are computed, E[(u . g)^2] = |g|^2. They come from the
double-backward trick: a backward pass is linear in the weights v it is given, so its derivative by v along u gives every
group's u . g_p at once. It is exact, needs no forward-mode rule of any layer, and keeps one graph for all directions: more
memory than an update on the same rows, and part of its time for each direction.

Axis letters: P groups (prompts), K directions, N kept rows, L levels.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recast_sim.signal import UpdatePlan
from recast_train.model import PromptTokens, SidModel, require
from recast_train.packed import packed_logprobs


def probe_gradients(
    model: SidModel,
    prompts: PromptTokens,
    plan: UpdatePlan,
    leaf_N: Tensor,
    group_size: int,
    projections: int = 32,
    *,
    generator: torch.Generator,
) -> dict[str, float | None]:
    """The figures of `gradient_figures` for one batch; takes what `update` takes, before its first step.

    Parameters, their gradients and the global random state stay as they are.

    Args:
        prompts: the prompts of all P groups of the batch, also of those without a kept row.
        projections: directions K; the squared norm of a gradient has a relative standard error of sqrt(2 / K).
        generator: draws the directions, on its own device.

    Raises:
        TrainError: no projection, or a model in training mode.
    """
    return gradient_figures(project_gradients(model, prompts, plan, leaf_N, group_size, projections, generator=generator))


def project_gradients(
    model: SidModel,
    prompts: PromptTokens,
    plan: UpdatePlan,
    leaf_N: Tensor,
    group_size: int,
    projections: int,
    *,
    generator: torch.Generator,
) -> Tensor:
    """u . g_p of each direction and group, (K, P), float64 on the CPU.

    A direction is one `torch.randn` of each trainable parameter in the order of `model.parameters()`, rounded to the
    parameter's dtype.
    """
    require(projections >= 1, "projections", projections, "must be at least 1")
    require(not model.training, "model.training", model.training, "adds dropout to the gradients; call model.eval()")
    groups = len(prompts.tokens_PT)
    projected_KP = torch.zeros(projections, groups, dtype=torch.float64)
    if len(plan.rows_N) == 0:
        return projected_KP
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        row_N = packed_logprobs(model, prompts, plan.rows_N // group_size, leaf_N).sum(1)
        weighted_N = groups * plan.coefficients_N.to(row_N.dtype) * row_N
        group_P = row_N.new_zeros(groups).index_add(0, plan.rows_N // group_size, weighted_N)
        weight_P = torch.ones_like(group_P, requires_grad=True)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(group_P, trainable, weight_P, create_graph=True, allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    for k in range(projections):
        drawn = [torch.randn(parameter.shape, generator=generator, device=generator.device) for parameter in trainable]
        parts = zip(drawn, gradients, strict=True)
        direction = [part.to(gradient) for part, gradient in parts if gradient is not None]
        projected_KP[k] = torch.autograd.grad(reached, weight_P, direction, retain_graph=True)[0]
    return projected_KP


def gradient_figures(projected_KP: Tensor) -> dict[str, float | None]:
    """Figures of the P groups' gradients from their projections (K, P); each squared norm is a mean over the K directions.

    Returns:
        gradient_variance: sum over groups of |g_p - mean|^2, over P - 1.
        gradient_norm_squared: |E g|^2 without bias, from products of different groups alone; may fall below 0. Its standard
            error over directions is about sqrt(2 / K) |mean|^2, more than itself where the signal-to-noise ratio is below that.
        gradient_snr: gradient_norm_squared / (gradient_variance / P), the signal-to-noise ratio of the batch's mean.
        cosine_halves: between the mean gradients of the even and of the odd groups. A ratio of estimates: its standard error
            is about (1 - cosine^2) / sqrt(K).

    A figure that is not defined is None: all of them with one group, the ratio where the variance is 0, the cosine where a
    half's gradient is 0.
    """
    groups = projected_KP.shape[1]
    names = ("gradient_variance", "gradient_norm_squared", "gradient_snr", "cosine_halves")
    if groups == 1:
        return dict.fromkeys(names)
    variance = float(projected_KP.var(1).mean())
    norm_squared = float(projected_KP.mean(1).square().mean()) - variance / groups
    even_K, odd_K = projected_KP[:, ::2].mean(1), projected_KP[:, 1::2].mean(1)
    length = float(even_K.norm() * odd_K.norm())
    figures = (
        variance,
        norm_squared,
        norm_squared * groups / variance if variance else None,
        float(even_K @ odd_K) / length if length else None,
    )
    return dict(zip(names, figures, strict=True))
