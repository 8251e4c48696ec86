"""Optimiser steps on the kept rows of a batch; the other rows reach no policy. Axes: P prompts, N kept rows, L levels."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recast_sim.errors import RecastError
from recast_sim.signal import Constructor, ObjectiveConfig, Signal, SignalConfig, UpdatePlan, plan_objective
from recast_sim.signal.groups import ScoredGroups, kept_leaves, signal_of
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy


class UpdateError(RecastError):
    """A loss, its gradient or what came of them that is not finite; the policy is left as it was before."""


def update(
    policy: TreePolicy,
    reference: TreePolicy,
    environment: Environment,
    groups: ScoredGroups,
    signal: Signal,
    optimiser: torch.optim.Optimizer,
    objective: ObjectiveConfig,
    updates: int = 1,
    mini_batches: int = 1,
    gradient_norm: float | None = None,
) -> dict[str, float]:
    """`updates` passes over the plan's rows. Returns the last step's loss, gradient norm, KL and clip share, and the number of
    optimiser steps.

    Args:
        mini_batches: parts of the batch's groups with an optimiser step each; a part without rows makes none. The loss of a
            part is over its share of the plan's normaliser.
        gradient_norm: rescale each gradient to this norm (`plan_gradient_norm` of another constructor gives one).

    Raises:
        UpdateError: the loss or its gradient is not finite.
    """
    log = {"loss": 0.0, "gradient_norm": 0.0, "kl": 0.0, "clip_share": 0.0, "optimiser_steps": 0.0}
    if len(signal.plan.rows_N) == 0:
        return log
    parts = [_Part(part, _KeptRows(environment, groups, signal, part)) for part in _mini_batches(signal, mini_batches)]
    off_policy = updates * len(parts) > 1  # one step is on-policy: old is new
    with torch.no_grad():
        old = [part.rows.logprobs(policy) if off_policy else None for part in parts]
        references = [part.rows.logprobs(reference) if objective.kl else None for part in parts]
    for part, old_NL, reference_NL in [*zip(parts, old, references, strict=True)] * updates:
        new_NL = part.rows.logprobs(policy)
        result = plan_objective(part.plan, new_NL, new_NL.detach() if old_NL is None else old_NL, reference_NL, objective)
        optimiser.zero_grad()
        result.loss.backward()
        loss, norm = float(result.loss.detach()), _gradient_norm(policy)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"gradient norm: {norm}" if math.isfinite(loss) else f"loss: {loss}"
            raise UpdateError(f"{what} with constructor {signal.constructor}; lower learning_rate")
        if gradient_norm is not None:
            _scale_gradient(policy, gradient_norm / norm if norm else 0.0)
        optimiser.step()
        log = {"loss": loss, "gradient_norm": norm, "kl": result.kl, "clip_share": result.clip_share}
    return log | {"optimiser_steps": float(updates * len(parts))}


@dataclass(frozen=True)
class _Part:
    """A mini-batch's plan and rows."""

    plan: UpdatePlan
    rows: "_KeptRows"


def _mini_batches(signal: Signal, count: int) -> list[UpdatePlan]:
    """The plan in parts of consecutive groups, those without rows left out; each with its share of the normaliser."""
    if count == 1:
        return [signal.plan]
    part_N = signal.plan.rows_N // signal.group_size * count // len(signal.learnable_P)
    plans = [signal.plan.take(part_N == part) for part in range(count)]
    return [replace(plan, normaliser=max(1.0, plan.normaliser / count)) for plan in plans if len(plan.rows_N)]


def plan_gradient_norm(
    policy: TreePolicy,
    environment: Environment,
    groups: ScoredGroups,
    constructor: Constructor,
    config: SignalConfig,
    seed: int,
) -> float:
    """Norm of the on-policy gradient that another constructor would take from the same groups; 0 where it keeps no row."""
    signal = signal_of(groups, constructor, config, torch_generator(seed, "norm"))
    if len(signal.plan.rows_N) == 0:
        return 0.0
    logprob_NL = _KeptRows(environment, groups, signal, signal.plan).logprobs(policy)
    total = (signal.plan.coefficients_NL * logprob_NL).sum()
    gradients = torch.autograd.grad(total, list(policy.parameters()), allow_unused=True)
    return float(torch.nn.utils.get_total_norm([g for g in gradients if g is not None]))


class _KeptRows:
    """The kept rows laid side by side, a group a line, so that a policy reads each group's context once."""

    def __init__(self, environment: Environment, groups: ScoredGroups, signal: Signal, plan: UpdatePlan) -> None:
        group_N = plan.rows_N // signal.group_size
        lines, self.line_N, counts = torch.unique_consecutive(group_N, return_inverse=True, return_counts=True)
        self.column_N = torch.arange(len(group_N)) - (counts.cumsum(0) - counts)[self.line_N]
        self.leaf_PR = torch.zeros(len(lines), int(counts.max()), dtype=torch.int64)
        self.leaf_PR[self.line_N, self.column_N] = kept_leaves(groups, plan, signal.group_size)
        self.x_PD = environment.train.x_ND[groups.prompt_P[lines]]

    def logprobs(self, policy: TreePolicy) -> Tensor:
        """Log-probability of each step of each kept row, (N, L)."""
        return policy.path_logprobs(self.x_PD, self.leaf_PR)[self.line_N, self.column_N]


def _gradient_norm(policy: TreePolicy) -> float:
    gradients: list[Any] = [p.grad for p in policy.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def _scale_gradient(policy: TreePolicy, factor: float) -> None:
    for parameter in policy.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
