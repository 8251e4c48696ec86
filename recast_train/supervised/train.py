"""Supervised training: next-token prediction on windows of the train sequences, stopped by what the validation prompts say.

A step's windows and dropout depend on the seed and the step alone, so a run that was killed and resumed ends with the same
numbers. Axis letters: B windows, W items of a window.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recast_sim.catalog import Catalog
from recast_sim.runs import derive_seed
from recast_sim.runs.model_state import load_tensors, save_tensors
from recast_train.data import Dataset, Prompts, sample_prompts
from recast_train.engine import Engine, Recorder, State
from recast_train.evaluate import QUICK, score_over_ranks, target_logprobs_over_ranks
from recast_train.model import CHAT, SidModel, require
from recast_train.supervised.sft_config import SftConfig
from recast_train.supervised.weight_average import WeightAverage
from recast_train.supervised.window_loss import window_loss
from recast_train.supervised.windows import Windows, layouts

_KEPT = ("best_step", "best_score", "best_nll")  # meta values of a checkpoint
BEST = "best.safetensors"  # the best state so far, beside the newest one in a checkpoint


@dataclass
class _Progress:
    """Where training stands; what a checkpoint holds beside model and optimiser. `best_state` is on rank 0.

    `best_score` is what `SftConfig.choose_by` names, higher is better; `best_nll` is the NLL at the same step.
    """

    step: int
    best_step: int
    best_score: float
    best_nll: float
    best_state: State


def train_sft(
    engine: Engine,
    model: SidModel,
    catalog: Catalog,
    dataset: Dataset,
    validation: Prompts,
    config: SftConfig,
    seed: int,
    recorder: Recorder,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[State, dict[str, float]]:
    """Train from the recorder's last checkpoint on; returns the weights of the best validation pass, and a summary.

    The summary has the step, the best step and its validation NLL (nats a prompt: of the probability of all its targets
    together). All ranks call it with the same model; each takes its part of a step's windows.

    Raises:
        TrainError: the loss or its gradient is not finite; the last checkpoint is kept, and the message names it.
    """
    if model.vocabulary.chat:
        require(config.steps == 0, "SftConfig.steps", config.steps, f"must be 0 where ModelConfig.prompt is {CHAT}")
    prepared = engine.prepare(model)
    optimiser = torch.optim.AdamW(prepared.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    progress = _restore(recorder, prepared, optimiser)
    part = sample_prompts(validation, config.validation_prompts, seed, "validation prompts")
    windows = Windows(dataset, config.window, config.batch, seed, config.crop, config.item_dropout)
    average = WeightAverage(optimiser, config.average)
    train_step = _TrainStep(engine, prepared, catalog, windows, optimiser, config, seed)
    if config.steps == 0:
        _validate(engine, prepared, catalog, part, progress, recorder, config)
    while progress.step < config.last and not _finished(progress, config):
        progress.step += 1
        with recorder.guard(progress.step):
            row = train_step(progress.step)
        average.update(progress.step)
        recorder.step({"step": progress.step, **row})
        if progress.step % config.evaluate_every == 0 or progress.step == config.last:
            with average.in_the_model():
                _validate(engine, prepared, catalog, part, progress, recorder, config)
            _checkpoint(recorder, prepared, optimiser, progress)
        on_step(progress.step)
    summary = {"steps": progress.step, "best_step": progress.best_step, "validation_nll": progress.best_nll}
    return progress.best_state, summary


def learning_rate(config: SftConfig, step: int) -> float:
    """Linear warm-up, then a cosine from the full rate to a twentieth of it at the last step."""
    warm = min(1.0, step / config.warm_up) if config.warm_up else 1.0
    return config.learning_rate * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * step / config.steps)) / 2)


@dataclass(frozen=True)
class _TrainStep:
    """One optimiser step; returns its row."""

    engine: Engine
    model: nn.Module
    catalog: Catalog
    windows: Windows
    optimiser: torch.optim.Optimizer
    config: SftConfig
    seed: int

    def __call__(self, step: int) -> dict[str, float]:
        started, config, engine = time.perf_counter(), self.config, self.engine
        rate = learning_rate(config, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        every = self.windows.step(step)
        parts, items = layouts(every[engine.rank :: engine.world]), int((every >= 0).sum())
        rank = () if engine.is_main else (engine.rank,)  # each rank drops out its own
        devices = [engine.device] if engine.device.type == "cuda" else []
        self.optimiser.zero_grad()
        self.model.train()
        losses: list[Tensor] = []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(self.seed, "dropout", step, *rank))
            for part in parts:
                mean = self.model(window_loss, self.catalog, part, config.label_smoothing)
                own = mean * (float((part >= 0).sum()) / items)
                engine.backward(own)
                losses.append(own.detach())
        loss = sum(torch.stack(losses).tolist(), 0.0)  # read once all passes are under way
        total, norm = engine.step(self.model, loss, self.optimiser, config.max_norm)
        self.model.eval()
        seconds = time.perf_counter() - started
        filled = items / sum(part.size for part in layouts(every))  # as one process lays them out
        row = {"loss": total, "gradient_norm": norm, "learning_rate": rate, "seconds": seconds}
        return row | {"tokens": float(items * self.catalog.levels), "filled": filled}


def _validate(
    engine: Engine,
    model: nn.Module,
    catalog: Catalog,
    part: Prompts,
    progress: _Progress,
    recorder: Recorder,
    config: SftConfig,
) -> None:
    started, ranking = time.perf_counter(), {}
    with recorder.guard(progress.step):
        replica = engine.replica(model)
        logprob = target_logprobs_over_ranks(engine, replica, catalog, part)
        if config.choose_by != "nll":
            found = score_over_ranks(engine, replica, catalog, part, QUICK).summary(QUICK.cuts)["unfiltered"]
            ranking = {f"{name}_unfiltered": value for name, value in found.items()}
    nll, sampled = float(-logprob.mean()), float(np.exp(logprob).mean())
    seconds = time.perf_counter() - started
    row = {"validation_nll": nll, "pass_at_1_sampled": sampled, **ranking, "seconds": seconds}
    recorder.evaluation({"step": progress.step, **row})
    score = -nll if config.choose_by == "nll" else ranking[f"{config.choose_by}_unfiltered"]
    if score > progress.best_score:
        progress.best_score, progress.best_nll = score, nll
        progress.best_step, progress.best_state = progress.step, engine.state(model)


def _finished(progress: _Progress, config: SftConfig) -> bool:
    return progress.step - progress.best_step >= config.patience * config.evaluate_every


def _checkpoint(recorder: Recorder, model: nn.Module, optimiser: torch.optim.Optimizer, progress: _Progress) -> None:
    def best(folder: Path) -> None:
        save_tensors(folder / BEST, progress.best_state.model)

    recorder.save(progress.step, model, optimiser, best, **{key: getattr(progress, key) for key in _KEPT})


def _restore(recorder: Recorder, model: nn.Module, optimiser: torch.optim.Optimizer) -> _Progress:
    best = State()

    def read(folder: Path) -> None:
        nonlocal best
        best = State(load_tensors(folder / BEST, folder))

    step, meta = recorder.restore(model, optimiser, _KEPT, read)
    if not step:
        return _Progress(0, 0, -math.inf, math.inf, best)
    return _Progress(step, meta["best_step"], meta["best_score"], meta["best_nll"], best)
