"""One step of the RL loop on any number of processes: each rolls out its own prompts, all construct the whole batch's signal.

Axis letters: P prompts of the batch, G rollouts, N rows.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from recast_sim.runs import derive_seed
from recast_sim.signal import Constructor, Signal
from recast_sim.signal.groups import group_rows, kept_leaves, signal_of, signal_row
from recast_sim.thought_methods import ThoughtMethod
from recast_train.engine import Engine, OwnRows, split_plan
from recast_train.model import PromptTokens
from recast_train.rl.cost import mfu, peak_flops, peak_memory_gib
from recast_train.rl.gradient_probe import FIGURES, probe_gradients
from recast_train.rl.micro_batches import RankBatch
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rollout_groups import Groups, TrainPrompts, draw_groups
from recast_train.rl.thought_groups import draw_thoughts, rank_rows, thought_plan, thought_row
from recast_train.rl.update import Passes, take_steps


@dataclass(frozen=True)
class _Drawn:
    """What a step has drawn: this rank's rows, its columns, the rows of its groups, what was spent, and the time it took."""

    batch: RankBatch
    rows: OwnRows
    row: dict[str, Any]
    group_rows: dict[str, Any]
    spent: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Step:
    """Call it with the number of the step; it adds what the step spends to `totals`. Models as `Engine.prepare` gave them.

    Groups are those of rollouts, or with `thoughts` of thoughts.
    """

    engine: Engine
    model: nn.Module
    reference: nn.Module | None
    train: TrainPrompts
    constructor: Constructor
    config: RlConfig
    seed: int
    optimiser: torch.optim.Optimizer
    totals: dict[str, int]
    thoughts: ThoughtMethod | None = None

    def __call__(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The step's row and its group rows (none where nothing was sampled)."""
        drawn = self._rollouts(step) if self.thoughts is None else self._thoughts(step, self.thoughts)
        log = take_steps(drawn.batch, self.model, self.reference, drawn.rows, self.optimiser, self._passes(step))
        for name, count in drawn.spent.items():
            self.totals[name] += count
        for name in ("actor_tokens", "optimiser_steps"):
            self.totals[name] += int(log.pop(name))
        device, flops, actor = self.engine.device, log.pop("flops"), log["seconds_actor"]
        speed = {
            "actor_tflops_per_second": flops / actor / 1e12 if actor else 0.0,
            "mfu": mfu(flops, actor, peak_flops(device)) if actor else None,
            "peak_memory_gib": peak_memory_gib(device),
        }
        return {**drawn.row, **log, **drawn.seconds, **speed}, drawn.group_rows

    def _passes(self, step: int) -> Passes:
        """How the batch of a step is passed, at the step's learning rate."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * (min(1.0, step / config.warm_up) if config.warm_up else 1.0)
        return Passes(
            config.objective,
            config.updates_per_batch,
            config.mini_batches,
            config.max_norm or torch.inf,
        )

    def _rollouts(self, step: int) -> _Drawn:
        """Groups of rollouts."""
        config, begun = self.config, time.perf_counter()
        groups = draw_groups(
            self.engine,
            self.model,
            self.train,
            self.constructor,
            config.signal,
            (config.prompts_per_step, config.group_size),
            config.max_draws,
            derive_seed(self.seed, "step", step),
            config.rollout,
        )
        drawn = time.perf_counter()
        ties = torch.Generator().manual_seed(derive_seed(self.seed, "signal", step))
        signal = signal_of(groups.scored, self.constructor, config.signal, ties)
        seconds = _seconds(begun, drawn, groups.reward_seconds)
        row = {**_row(groups, signal, config), **self._noise(step, groups, signal)}
        own = group_rows(step, groups.scored.prompt_P, signal) if groups.sampled else {}
        spent = {
            "rollouts": groups.scored.drawn,
            "generated_tokens": groups.scored.drawn * self._levels + groups.thought_tokens,
            "actor_rows": len(signal.plan.rows_N) * config.updates_per_batch,
        }
        return _Drawn(*self._own(groups, signal), row, own, spent, seconds)

    def _thoughts(self, step: int, method: ThoughtMethod) -> _Drawn:
        """Groups of thoughts."""
        config, begun, levels = self.config, time.perf_counter(), self._levels
        seed = derive_seed(self.seed, "step", step)
        groups = draw_thoughts(self.engine, self.model, self.train, method, config, seed)
        drawn, hard = time.perf_counter(), method.kind == "hard"
        plan, signal = thought_plan(groups, method, config, levels)
        seconds = _seconds(begun, drawn, groups.reward_seconds)
        counted = {**signal_row(signal, hard), "update_width": len(plan.rows_N) / config.prompts_per_step}
        row = {**counted, **thought_row(groups, method), "prompt_tokens": int(self.train.tokens.real_PT[groups.prompt_P].sum())}
        count = groups.length_PG.numel()
        spent = {
            "rollouts": count,
            "generated_tokens": int(groups.length_PG.sum()) + count * levels * hard,
            "actor_rows": len(plan.rows_N) * config.updates_per_batch,
        }
        own = group_rows(step, groups.prompt_P, signal) if hard else {}
        return _Drawn(*rank_rows(self.engine, groups, plan, config, levels), row, own, spent, seconds)

    @property
    def _levels(self) -> int:
        return self.engine.unwrap(self.model).levels

    def _own(self, groups: Groups, signal: Signal) -> tuple[RankBatch, OwnRows]:
        """This rank's rows and how they are computed. A redraw may leave a number of groups that does not divide: then the
        last prompt stands again at the end, without rows."""
        P, world = len(groups.scored.prompt_P), self.engine.world
        share = self.engine.share(-(-P // world) * world)
        own = torch.arange(share.start, share.stop).clamp(max=P - 1)
        rows = split_plan(signal.plan, signal.group_size, share)
        leaf_N = kept_leaves(groups.scored, rows.plan, signal.group_size, own)
        prompts = PromptTokens(groups.tokens.tokens_PT[own], groups.tokens.real_PT[own])
        how = (self.config.rollout.temperature, self.config.micro_batch_tokens)
        return RankBatch(self.engine, prompts, rows.plan.rows_N // signal.group_size, leaf_N, *how), rows

    def _noise(self, step: int, groups: Groups, signal: Signal) -> dict[str, float | None]:
        """The gradient's noise at the chosen steps, None at the others; nothing where it is never wanted."""
        every = self.config.probe_every
        if not every:
            return {}
        if step % every:
            return dict.fromkeys(FIGURES)
        leaf_N = kept_leaves(groups.scored, signal.plan, signal.group_size)
        inner, temperature = self.engine.unwrap(self.model), self.config.rollout.temperature
        return probe_gradients(inner, groups.tokens, signal.plan, leaf_N, signal.group_size, temperature)


def _seconds(begun: float, drawn: float, reward: float) -> dict[str, float]:
    signal = time.perf_counter() - drawn
    return {"seconds_rollout": drawn - begun - reward, "seconds_reward": reward, "seconds_signal": signal}


def _row(groups: Groups, signal: Signal, config: RlConfig) -> dict[str, float]:
    """The simulator's columns; a method that samples nothing has no regimes. `entropy` (nats a SID) is the mean negative
    log-probability of the rollouts, an estimate that only independent draws allow."""
    row = signal_row(signal, groups.sampled)
    if groups.sampled and config.rollout.method == "iid":
        row["entropy"] = float(-groups.scored.logprob_PG.mean())
    return {**row, "prompt_tokens": int(groups.tokens.real_PT.sum())}
