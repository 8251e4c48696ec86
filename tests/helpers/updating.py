"""Optimiser steps on rollouts as tests have them: a plan, and the leaf of each of its rows."""

import torch
from torch import Tensor, nn

from recast_train.engine import Engine, OwnRows
from recast_train.model import PromptTokens
from recast_train.rl.micro_batches import RankBatch
from recast_train.rl.update import Passes, take_steps


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
    temperature: float = 1.0,
    limit: int = 0,
) -> dict[str, float]:
    """`take_steps`; the rows index (prompt, rollout) pairs of `prompts` with `group_size` rollouts each."""
    batch = RankBatch(engine, prompts, rows.plan.rows_N // group_size, leaf_N, temperature, limit)
    return take_steps(batch, model, reference, rows, optimiser, passes)
