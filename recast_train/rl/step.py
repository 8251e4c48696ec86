"""One step of the RL loop on any number of processes: each rolls out its own prompts, all construct the whole batch's signal.

Axis letters: P prompts of the batch, G rollouts, N rows.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recast_sim.runs import derive_seed
from recast_sim.signal import Constructor, Signal, regime_codes
from recast_train.engine import Engine, OwnRows, split_plan
from recast_train.model import PromptTokens
from recast_train.rl.cost import mfu, peak_flops, peak_memory_gib
from recast_train.rl.gradient_probe import FIGURES, probe_gradients
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rollout_groups import Groups, TrainPrompts, draw_groups, kept_leaves, signal_of
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
        signal = signal_of(groups, self.constructor.name, config.signal, derive_seed(self.seed, "signal", step))
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
        return {**_signal_row(groups, signal, config), **noise, **log, **seconds, **speed}, _group_rows(step, groups, signal)

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
        P, world, device = len(groups.prompt_P), self.engine.world, self.engine.device
        share = self.engine.share(-(-P // world) * world)
        own = torch.arange(share.start, share.stop).clamp(max=P - 1)
        rows = split_plan(signal.plan, signal.group_size, share)
        leaf_N = kept_leaves(groups, rows.plan, signal.group_size, own)
        prompts = PromptTokens(groups.tokens.tokens_PT[own], groups.tokens.real_PT[own]).to(device)
        return prompts, OwnRows(rows.plan.to(device), rows.own_N.to(device)), leaf_N.to(device)

    def _noise(self, step: int, groups: Groups, signal: Signal) -> dict[str, float | None]:
        """The gradient's noise at the chosen steps, None at the others; nothing where it is never wanted."""
        every, device = self.config.probe_every, self.engine.device
        if not every:
            return {}
        if step % every:
            return dict.fromkeys(FIGURES)
        whole = torch.arange(len(groups.prompt_P))
        leaf_N = kept_leaves(groups, signal.plan, signal.group_size, whole).to(device)
        plan, inner = signal.plan.to(device), self.engine.unwrap(self.model)
        temperature = self.config.rollout.temperature
        return probe_gradients(inner, groups.tokens.to(device), plan, leaf_N, signal.group_size, temperature)

    def _spend(self, groups: Groups, signal: Signal, log: dict[str, float]) -> None:
        levels = self.engine.unwrap(self.model).levels
        self.totals["rollouts"] += groups.drawn
        self.totals["generated_tokens"] += groups.drawn * levels + groups.thought_tokens
        self.totals["actor_rows"] += len(signal.plan.rows_N) * self.config.updates_per_batch
        for name in ("actor_tokens", "optimiser_steps"):
            self.totals[name] += int(log.pop(name))


def _signal_row(groups: Groups, signal: Signal, config: RlConfig) -> dict[str, float]:
    """The simulator's columns; a method that samples nothing has no regimes. `entropy` (nats a SID) is the mean negative
    log-probability of the rollouts, an estimate that only independent draws allow."""
    row: dict[str, float] = {}
    if groups.sampled:
        row |= {f"before_{name}": share for name, share in asdict(signal.regime_before).items()}
        row |= {f"after_{name}": share for name, share in asdict(signal.regime_after).items()}
        if config.rollout.method == "iid":
            row["entropy"] = float(-groups.logprob_PG.mean())
    row["learnable"] = float(signal.learnable_P.float().mean())
    row["repaired"] = float(signal.repaired_P.float().mean())
    row["update_width"] = len(signal.plan.rows_N) / len(signal.learnable_P)
    row["prompt_tokens"] = int(groups.tokens.real_PT.sum())
    return row


def _group_rows(step: int, groups: Groups, signal: Signal) -> dict[str, Any]:
    if not groups.sampled:
        return {}
    valid_P = groups.valid_PG.sum(1)
    return {
        "step": [step] * len(valid_P),
        "prompt": groups.prompt_P.numpy(),
        "hits": signal.hits_before_P.numpy(),
        "valid": valid_P.numpy(),
        "regime": regime_codes(signal.hits_before_P, valid_P).numpy(),
        "repaired": signal.repaired_P.numpy(),
        "learnable": signal.learnable_P.numpy(),
    }
