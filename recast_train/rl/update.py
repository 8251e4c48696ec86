"""Optimiser steps on the kept rows of a batch; rows outside the plan reach no forward pass, old, reference or actor.

Axis letters: N rows of one rank, L levels.
"""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recast_sim.signal import ObjectiveConfig
from recast_train.engine import Engine, OwnRows
from recast_train.model import SidModel, beside
from recast_train.model.shared_prefixes import PrefixTree
from recast_train.rl.cost import attention_flops, packed_pairs, training_flops
from recast_train.rl.micro_batches import RankBatch


@dataclass(frozen=True)
class Passes:
    """How often and with what a batch is passed.

    Attributes:
        updates: passes over the batch; `mini_batches` optimiser steps of each, on parts of the rows.
        max_norm: longer gradients are cut to this length.
    """

    objective: ObjectiveConfig
    updates: int = 1
    mini_batches: int = 1
    max_norm: float = torch.inf


def take_steps(
    batch: RankBatch,
    model: nn.Module,
    reference: nn.Module | None,
    rows: OwnRows,
    optimiser: torch.optim.Optimizer,
    passes: Passes,
) -> dict[str, float]:
    """Take the optimiser steps of a batch; all ranks call it, each with its own prompts and rows.

    Args:
        model, reference: as `Engine.prepare` gave them; the reference is only computed where `objective.kl` is not 0.
        rows: the numbers of the batch's rows, on the CPU as they are, wherever the model is: a device is not waited for.

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
    engine, length_P = batch.engine, batch.prompts.length_P
    parts = [part for part in torch.arange(len(batch.leaf_N)).chunk(passes.mini_batches) if len(part)]
    clock = _Clock(engine.device)
    old_NL = batch.fixed_logprobs(model) if passes.updates * len(parts) > 1 else None
    log["seconds_old"] = clock.lap() if old_NL is not None else 0.0
    reference_NL = batch.fixed_logprobs(reference) if reference is not None and passes.objective.kl else None
    log["seconds_reference"] = clock.lap() if reference_NL is not None else 0.0
    every = engine.all_sum(rows.count)[0]
    for part in parts * passes.updates:
        some = _part(rows, part, every, engine)
        if some is None:
            continue
        optimiser.zero_grad()
        loss, shares = _backward(batch, model, part, some, (old_NL, reference_NL), passes.objective)
        loss, norm = engine.step(model, loss, optimiser, passes.max_norm)
        log |= {"loss": loss, "gradient_norm": norm, **shares}
        log["optimiser_steps"] += 1
        log["actor_tokens"] += batch.tree(model, part[some.own_N]).tokens(length_P) if some.count else 0
        log["flops"] += _flops(engine.unwrap(model), length_P, batch.tree(model, part))
    log["seconds_actor"] = clock.lap()
    log["actor_tokens"] = int(engine.all_sum(log["actor_tokens"])[0])
    return log


def _backward(
    batch: RankBatch,
    model: nn.Module,
    part: Tensor,
    rows: OwnRows,
    held: tuple[Tensor | None, Tensor | None],
    config: ObjectiveConfig,
) -> tuple[float, dict[str, float]]:
    """Gradients of the rows `part`, pass by pass, added up; this rank's loss, all ranks' KL and clip share.

    `held` are the old log-probabilities (None: those of this pass) and the reference's.
    """
    passes: list[tuple[int, int, Tensor]] = []  # own rows, their log-probabilities, and what is read at the end
    loss = kl = clipped = 0.0
    for at_N, counted in batch.cut(model, part):
        new_NL = batch.logprobs(model, part[at_N])
        old_NL, reference_NL = (None if known_NL is None else known_NL[beside(part[at_N], known_NL)] for known_NL in held)
        own = OwnRows(rows.plan.take(at_N), rows.own_N[at_N] & counted)
        result = own.objective(new_NL, new_NL.detach() if old_NL is None else old_NL, reference_NL, config)
        batch.engine.backward(result.loss)
        passes.append((own.count, own.count * new_NL.shape[1], torch.cat([result.loss.detach()[None], result.figures])))
    for (count, numbers, _), figures in zip(passes, torch.stack([row for *_, row in passes]).tolist(), strict=True):
        loss += figures[0]
        if count:  # else both are NaN
            kl, clipped = kl + count * figures[1], clipped + numbers * figures[2]
    trained = batch.trained_tokens(model, part[rows.own_N])
    means = {"kl": (kl, rows.count), "clip_share": (clipped, trained)}  # of trained tokens: thoughts differ in length
    return loss, {name: batch.engine.mean(total / max(weight, 1), weight) for name, (total, weight) in means.items()}


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
    own_N = rows.own_N[part]
    count = engine.all_sum(float(own_N.sum()))[0]
    if not count:
        return None
    plan = rows.plan.take(part)
    return OwnRows(replace(plan, normaliser=plan.normaliser * count / every), own_N)


def _flops(model: SidModel, length_P: Tensor, tree: PrefixTree) -> int:
    lm = model.lm.config
    head = getattr(lm, "head_dim", None) or lm.hidden_size // lm.num_attention_heads
    attention = attention_flops(lm.num_hidden_layers, lm.num_attention_heads, head, packed_pairs(length_P, tree))
    return training_flops(model.parameter_count, tree.tokens(length_P), attention)
