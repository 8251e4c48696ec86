"""Optimiser steps on the kept rows of a batch; rows outside the plan reach no forward pass, old, reference or actor.

Axis letters: N kept rows, L levels.
"""

import torch
from torch import Tensor, nn

from recast_sim.signal import ObjectiveConfig, UpdatePlan, plan_objective
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.packed import packed_logprobs, packed_tokens


def update(
    model: SidModel,
    reference: SidModel,
    prompts: PromptTokens,
    plan: UpdatePlan,
    leaf_N: Tensor,
    group_size: int,
    optimiser: torch.optim.Optimizer,
    objective: ObjectiveConfig,
    updates: int = 1,
) -> dict[str, float]:
    """Take `updates` optimiser steps; returns the last one's loss, gradient norm, KL and clip share, and the actor's tokens.

    Args:
        reference: only computed where `objective.kl` is not 0.
        plan: its `rows_N` index (prompt, rollout) pairs of `prompts` with `group_size` rollouts each.
        leaf_N: leaf of each kept row (the anchor's where one was placed).

    Raises:
        TrainError: the loss is not finite.
    """
    log: dict[str, float] = {"loss": 0.0, "gradient_norm": 0.0, "kl": 0.0, "clip_share": 0.0, "actor_tokens": 0}
    if len(plan.rows_N) == 0:
        return log
    prompt_N = plan.rows_N // group_size
    with torch.no_grad():
        # one step a batch is exactly on-policy: the old log-probabilities are the new ones, without a pass of their own
        old_NL = packed_logprobs(model, prompts, prompt_N, leaf_N) if updates > 1 else None
        reference_NL = packed_logprobs(reference, prompts, prompt_N, leaf_N) if objective.kl else None
    for _ in range(updates):
        new_NL = packed_logprobs(model, prompts, prompt_N, leaf_N)
        result = plan_objective(plan, new_NL, new_NL.detach() if old_NL is None else old_NL, reference_NL, objective)
        norm = descend(model, result.loss, optimiser)
        log |= {"loss": float(result.loss.detach()), "gradient_norm": norm, "kl": result.kl, "clip_share": result.clip_share}
    log["actor_tokens"] = updates * packed_tokens(model, prompts, prompt_N)
    return log


def descend(model: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, max_norm: float = torch.inf) -> float:
    """One optimiser step down a loss; returns the gradient's norm before it was cut to `max_norm`.

    Raises:
        TrainError: the loss or its gradient is not finite; the model is left as it was.
    """
    optimiser.zero_grad()
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), max_norm))
    if not (torch.isfinite(loss) and norm < torch.inf):
        raise TrainError(f"loss: {loss.item()} with gradient norm {norm}; lower learning_rate")
    optimiser.step()
    return norm
