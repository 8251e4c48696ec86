"""Optimiser steps on the kept rows of a batch; rows outside the plan reach no forward pass, old, reference or actor.

Axis letters: N rows of one rank, L levels.
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recast_sim.signal import Objective, ObjectiveConfig
from recast_train.engine import Engine, OwnRows
from recast_train.model import PromptTokens, SidModel
from recast_train.packed import packed_logprobs, packed_tokens
from recast_train.throughput import attention_flops, packed_pairs, training_flops


@dataclass(frozen=True)
class Passes:
    """How often and with what a batch is passed.

    Attributes:
        updates: passes over the batch; `mini_batches` optimiser steps of each, on parts of the rows.
        temperature: of the rollouts; old, reference and new log-probabilities are at the same.
        max_norm: longer gradients are cut to this length.
    """

    objective: ObjectiveConfig
    updates: int = 1
    mini_batches: int = 1
    temperature: float = 1.0
    max_norm: float = torch.inf


def update(
    engine: Engine,
    model: nn.Module,
    reference: nn.Module | None,
    prompts: PromptTokens,
    rows: OwnRows,
    leaf_N: Tensor,
    group_size: int,
    optimiser: torch.optim.Optimizer,
    passes: Passes,
) -> dict[str, float]:
    """Take the optimiser steps of a batch; all ranks call it, each with its own prompts and rows.

    Args:
        model, reference: as `Engine.prepare` gave them; the reference is only computed where `objective.kl` is not 0.
        rows: its plan's `rows_N` index (prompt, rollout) pairs of `prompts` with `group_size` rollouts each.
        leaf_N: leaf of each row (the anchor's where one was placed).

    Returns:
        the last step's loss, gradient norm, KL and clip share; of the whole batch the actor's tokens and optimiser steps; of
        this rank the FLOPs of the actor's passes and the seconds of the old, reference and actor passes. The old pass is
        skipped, 0 s, where there is one optimiser step: then the old log-probabilities are the new ones.

    Raises:
        TrainError: the loss or its gradient is not finite; the model is left as it was.
    """
    log = {"loss": 0.0, "gradient_norm": 0.0, "kl": 0.0, "clip_share": 0.0, "actor_tokens": 0, "optimiser_steps": 0}
    log |= {"flops": 0, "seconds_old": 0.0, "seconds_reference": 0.0, "seconds_actor": 0.0}
    if len(rows.plan.rows_N) == 0:  # on all ranks alike
        return log
    prompt_N = rows.plan.rows_N // group_size
    parts = [part for part in torch.arange(len(prompt_N), device=prompt_N.device).chunk(passes.mini_batches) if len(part)]
    clock, inputs = _Clock(engine.device), (passes.temperature,)
    with torch.no_grad():
        off_policy = passes.updates * len(parts) > 1
        old_NL = model(packed_logprobs, prompts, prompt_N, leaf_N, *inputs) if off_policy else None
        log["seconds_old"] = clock.lap() if off_policy else 0.0
        wanted = reference if passes.objective.kl else None
        reference_NL = wanted(packed_logprobs, prompts, prompt_N, leaf_N, *inputs) if wanted else None
        log["seconds_reference"] = clock.lap() if reference_NL is not None else 0.0
    every = engine.all_sum(rows.count)[0]
    for part in parts * passes.updates:
        some = _part(rows, part, every, engine)
        if some is None:
            continue
        new_NL = model(packed_logprobs, prompts, prompt_N[part], leaf_N[part], *inputs)
        held = (new_NL.detach() if old_NL is None else old_NL[part], None if reference_NL is None else reference_NL[part])
        result = some.objective(new_NL, *held, passes.objective)
        loss, norm = engine.descend(model, result.loss, optimiser, passes.max_norm)
        log |= {"loss": loss, "gradient_norm": norm, **_shares(engine, result, some)}
        log["optimiser_steps"] += 1
        log["actor_tokens"] += packed_tokens(engine.unwrap(model), prompts, prompt_N[part][some.own_N.to(part.device)])
        log["flops"] += _flops(engine.unwrap(model), prompts, prompt_N[part])
    log["seconds_actor"] = clock.lap()
    log["actor_tokens"] = int(engine.all_sum(log["actor_tokens"])[0])
    return log


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call; a GPU's work is waited for."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _part(rows: OwnRows, part: Tensor, every: float, engine: Engine) -> OwnRows | None:
    """A mini-batch of the rows, its normaliser its share of the batch's; None where no rank has a row in it."""
    if len(part) == len(rows.own_N):
        return rows
    own_N = rows.own_N[part.to(rows.own_N.device)]
    count = engine.all_sum(float(own_N.sum()))[0]
    if not count:
        return None
    plan = rows.plan.take(part)
    return OwnRows(replace(plan, normaliser=plan.normaliser * count / every), own_N)


def _shares(engine: Engine, result: Objective, rows: OwnRows) -> dict[str, float]:
    return {name: engine.mean(getattr(result, name), rows.count) for name in ("kl", "clip_share")}


def _flops(model: SidModel, prompts: PromptTokens, prompt_N: Tensor) -> int:
    lm, pairs = model.lm.config, packed_pairs(prompts.length_P, prompt_N, model.levels - 1)
    head = getattr(lm, "head_dim", None) or lm.hidden_size // lm.num_attention_heads
    attention = attention_flops(lm.num_hidden_layers, lm.num_attention_heads, head, pairs)
    return training_flops(model.parameter_count, packed_tokens(model, prompts, prompt_N), attention)
