"""Supervised training: next-token prediction on windows of the train sequences, stopped by the validation prompts' NLL.

A step's windows and dropout depend on the seed and the step alone, so a run that was killed and resumed ends with the same
numbers. The loss is the trie-constrained one: the model is trained on the distribution that it samples from.
Axis letters: B windows, W items of a window, I items, L levels, D hidden width.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recast_sim.catalog import Catalog
from recast_sim.configio import Checked, Share
from recast_sim.runs import derive_seed
from recast_sim.runs.model_state import load_tensors, save_tensors
from recast_train.data import Dataset, Prompts, sample_prompts
from recast_train.engine import Engine, Recorder, State
from recast_train.evaluate import target_logprobs_over_ranks
from recast_train.model import CHAT, SidModel, TrainError, require

BEST = "best.safetensors"  # the best state so far, beside the newest one in a checkpoint


@dataclass(frozen=True)
class SftConfig(Checked, error=TrainError):
    """Supervised training.

    Attributes:
        steps: at most, 0 keeps the model as it is; the learning rate rises over `warm_up` steps and falls to a twentieth along
            a cosine.
        batch: windows of a step; `window`: items of a window, all of them targets.
        evaluate_every: steps between validation passes (each is a checkpoint as well) over `validation_prompts` of them.
        patience: validation passes without a better NLL after which training stops.
        label_smoothing: share of each target's mass that is spread over its legal siblings.
        max_norm: longer gradients are cut to this length.
    """

    steps: NonNegativeInt = 1200
    batch: PositiveInt = 64
    window: Annotated[int, Field(ge=2)] = 21
    learning_rate: PositiveFloat = 0.001
    warm_up: NonNegativeInt = 100
    weight_decay: NonNegativeFloat = 0.1
    label_smoothing: Share = 0.0
    max_norm: PositiveFloat = 1.0
    evaluate_every: PositiveInt = 100
    validation_prompts: PositiveInt = 2000
    patience: PositiveInt = 3


@dataclass
class _Progress:
    """Where training stands; what a checkpoint holds beside model and optimiser. `best_state` is on rank 0."""

    step: int
    best_step: int
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
    train_step = _TrainStep(engine, prepared, catalog, dataset, optimiser, config, seed)
    if config.steps == 0:
        _validate(engine, prepared, catalog, part, progress, recorder)
    while progress.step < config.steps and not _finished(progress, config):
        progress.step += 1
        with recorder.guard(progress.step):
            row = train_step(progress.step)
        recorder.step({"step": progress.step, **row})
        if progress.step % config.evaluate_every == 0 or progress.step == config.steps:
            _validate(engine, prepared, catalog, part, progress, recorder)
            _checkpoint(recorder, prepared, optimiser, progress)
        on_step(progress.step)
    summary = {"steps": progress.step, "best_step": progress.best_step, "validation_nll": progress.best_nll}
    return progress.best_state, summary


def draw_windows(dataset: Dataset, window: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Windows (B, W) of the train sequences: each ends at a uniformly drawn train position; -1 fills the right."""
    end_U = dataset.train_end_U
    at = rng.integers(int(end_U.sum()), size=count)
    user = np.searchsorted(end_U.cumsum(), at, side="right")
    last = at - (end_U.cumsum() - end_U)[user]
    first = np.maximum(last - window + 1, 0)
    place = first[:, None] + np.arange(window)
    inside = place <= last[:, None]
    return np.where(inside, dataset.item_M[(dataset.offset_U1[user][:, None] + place).clip(max=len(dataset.item_M) - 1)], -1)


def window_loss(model: SidModel, catalog: Catalog, window_BW: NDArray[np.int64], smoothing: float = 0.0) -> Tensor:
    """Mean over the windows' items of the NLL of the item's SID, each level over its legal children (nats)."""
    item_BW = torch.from_numpy(window_BW).to(model.device)
    real_BW, leaf_I = item_BW >= 0, torch.from_numpy(catalog.leaf_of_item_I).to(model.device)
    leaf_BW = leaf_I[item_BW.clamp(min=0)]
    windows = model.vocabulary.windows(window_BW)
    tokens_BT = windows.tokens_BT.to(model.device)
    positions_BT = torch.arange(tokens_BT.shape[1], device=model.device).expand_as(tokens_BT)
    row_BWL = torch.arange(len(window_BW), device=model.device)[:, None, None]
    matrix = model.output_matrix()
    hidden_BWLD = model.hidden(tokens_BT, positions_BT, None)[row_BWL, windows.at_BWL.to(model.device)]
    nodes_BWL = model.table("leaf_nodes")[leaf_BW]
    total = hidden_BWLD.new_zeros(())
    for level, logits_BWC in enumerate(model.level_logits(hidden_BWLD.unbind(2), matrix=matrix)):
        parent = nodes_BWL[..., level - 1] if level else torch.zeros_like(leaf_BW)
        logprobs = model.legal_logprobs(logits_BWC, level, parent)
        legal = torch.isfinite(logprobs)
        column = nodes_BWL[..., level] - model.table("first_child", level)[parent]
        target = logprobs.gather(-1, column[..., None])[..., 0]
        spread = logprobs.masked_fill(~legal, 0.0).sum(-1) / legal.sum(-1)
        total = total - ((1 - smoothing) * target + smoothing * spread)[real_BW].sum()
    return total / real_BW.sum()


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
    dataset: Dataset
    optimiser: torch.optim.Optimizer
    config: SftConfig
    seed: int

    def __call__(self, step: int) -> dict[str, float]:
        started, config, engine = time.perf_counter(), self.config, self.engine
        rate = learning_rate(config, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng(derive_seed(self.seed, "windows", step))
        windows = draw_windows(self.dataset, config.window, config.batch, rng)
        own = windows[engine.share(config.batch)]
        rank = () if engine.is_main else (engine.rank,)  # each rank drops out its own
        devices = [engine.device] if engine.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(self.seed, "dropout", step, *rank))
            mean = self.model.train()(window_loss, self.catalog, own, config.label_smoothing)
        loss = mean if engine.world == 1 else mean * float((own >= 0).sum() / (windows >= 0).sum())
        total, norm = engine.descend(self.model, loss, self.optimiser, config.max_norm)
        self.model.eval()
        seconds = time.perf_counter() - started
        return {"loss": total, "gradient_norm": norm, "learning_rate": rate, "seconds": seconds}


def _validate(
    engine: Engine, model: nn.Module, catalog: Catalog, part: Prompts, progress: _Progress, recorder: Recorder
) -> None:
    started = time.perf_counter()
    with recorder.guard(progress.step):
        logprob = target_logprobs_over_ranks(engine, engine.replica(model), catalog, part)
    nll, sampled = float(-logprob.mean()), float(np.exp(logprob).mean())
    seconds = time.perf_counter() - started
    recorder.evaluation({"step": progress.step, "validation_nll": nll, "pass_at_1_sampled": sampled, "seconds": seconds})
    if nll < progress.best_nll:
        progress.best_nll, progress.best_step, progress.best_state = nll, progress.step, engine.state(model)


def _finished(progress: _Progress, config: SftConfig) -> bool:
    return progress.step - progress.best_step >= config.patience * config.evaluate_every


def _checkpoint(recorder: Recorder, model: nn.Module, optimiser: torch.optim.Optimizer, progress: _Progress) -> None:
    def best(folder: Path) -> None:
        save_tensors(folder / BEST, progress.best_state.model)

    recorder.save(progress.step, model, optimiser, best, best_step=progress.best_step, best_nll=progress.best_nll)


def _restore(recorder: Recorder, model: nn.Module, optimiser: torch.optim.Optimizer) -> _Progress:
    best = State()

    def read(folder: Path) -> None:
        nonlocal best
        best = State(load_tensors(folder / BEST, folder))

    step, meta = recorder.restore(model, optimiser, ("best_step", "best_nll"), read)
    return _Progress(step, meta.get("best_step", 0), meta.get("best_nll", math.inf), best)
