"""One step of the RL loop on any number of processes: each rolls out its own prompts, all construct the whole batch's signal.

Axis letters: P prompts of the batch, G rollouts, N rows.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_sim.signal import Constructor, Signal
from recast_sim.signal.groups import group_rows, kept_leaves, signal_of, signal_row
from recast_train.engine import Engine, OwnRows, split_plan
from recast_train.model import PromptTokens
from recast_train.rl.cost import mfu, peak_flops, peak_memory_gib
from recast_train.rl.gradient_probe import FIGURES, probe_gradients
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rollout_groups import Groups, TrainPrompts, draw_groups
from recast_train.rl.update import Passes, update


@dataclass(frozen=True)
class Step:
    """Call it with the number of the step; it adds what the step spends to `totals`. Models as `Engine.prepare` gave them."""

    engine: Engine
    model: nn.Module
    reference: nn.Module | None
    train: TrainPrompts
    constructor: Constructor
    config: RlConfig
    seed: int
    optimiser: torch.optim.Optimizer
    totals: dict[str, int]

    def __call__(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The step's row and its group rows (none where nothing was sampled)."""
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
        seconds = {
            "seconds_rollout": drawn - begun - groups.reward_seconds,
            "seconds_reward": groups.reward_seconds,
            "seconds_signal": time.perf_counter() - drawn,
        }
        noise = self._noise(step, groups, signal)
        log = self._update(step, groups, signal)
        self._spend(groups, signal, log)
        device, flops, actor = self.engine.device, log.pop("flops"), log["seconds_actor"]
        speed = {
            "actor_tflops_per_second": flops / actor / 1e12 if actor else 0.0,
            "mfu": mfu(flops, actor, peak_flops(device)) if actor else None,
            "peak_memory_gib": peak_memory_gib(device),
        }
        own = group_rows(step, groups.scored.prompt_P, signal) if groups.sampled else {}
        return {**_row(groups, signal, config), **noise, **log, **seconds, **speed}, own

    def _update(self, step: int, groups: Groups, signal: Signal) -> dict[str, float]:
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * (min(1.0, step / config.warm_up) if config.warm_up else 1.0)
        prompts, rows, leaf_N = self._own(groups, signal)
        passes = Passes(
            config.objective,
            config.updates_per_batch,
            config.mini_batches,
            config.rollout.temperature,
            config.max_norm or torch.inf,
            config.micro_batch_tokens,
        )
        return update(self.engine, self.model, self.reference, prompts, rows, leaf_N, signal.group_size, self.optimiser, passes)

    def _own(self, groups: Groups, signal: Signal) -> tuple[PromptTokens, OwnRows, Tensor]:
        """This rank's prompts, rows and their leaves. A redraw may leave a number of groups that does not divide: then the last
        prompt stands again at the end, without rows."""
        P, world = len(groups.scored.prompt_P), self.engine.world
        share = self.engine.share(-(-P // world) * world)
        own = torch.arange(share.start, share.stop).clamp(max=P - 1)
        rows = split_plan(signal.plan, signal.group_size, share)
        leaf_N = kept_leaves(groups.scored, rows.plan, signal.group_size, own)
        return PromptTokens(groups.tokens.tokens_PT[own], groups.tokens.real_PT[own]), rows, leaf_N

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

    def _spend(self, groups: Groups, signal: Signal, log: dict[str, float]) -> None:
        levels = self.engine.unwrap(self.model).levels
        self.totals["rollouts"] += groups.scored.drawn
        self.totals["generated_tokens"] += groups.scored.drawn * levels + groups.thought_tokens
        self.totals["actor_rows"] += len(signal.plan.rows_N) * self.config.updates_per_batch
        for name in ("actor_tokens", "optimiser_steps"):
            self.totals[name] += int(log.pop(name))


def _row(groups: Groups, signal: Signal, config: RlConfig) -> dict[str, float]:
    """The simulator's columns; a method that samples nothing has no regimes. `entropy` (nats a SID) is the mean negative
    log-probability of the rollouts, an estimate that only independent draws allow."""
    row = signal_row(signal, groups.sampled)
    if groups.sampled and config.rollout.method == "iid":
        row["entropy"] = float(-groups.scored.logprob_PG.mean())
    return {**row, "prompt_tokens": int(groups.tokens.real_PT.sum())}
