"""The RL loop of the real trainer: sample, construct the signal, update on the kept rows. One loop for every constructor.

A step's prompts and draws depend on the seed and the step alone, not on the constructor: methods are compared on the same
prompts, and a run that was killed and resumed ends with the same numbers.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from recast_sim.catalog import Catalog
from recast_sim.runs import RunWriter, derive_seed
from recast_sim.runs.checkpoint import latest_checkpoint, load_state, save_state
from recast_sim.signal import (
    Constructor,
    ObjectiveConfig,
    Signal,
    SignalConfig,
    UpdatePlan,
    get_constructor,
    regime_codes,
)
from recast_train.data import Prompts
from recast_train.evaluate import EvaluationConfig, expected_all_zero, score_prompts
from recast_train.groups import Groups, TrainPrompts, draw_groups, kept_leaves, signal_of
from recast_train.model import SidModel, Vocabulary, require
from recast_train.rollout import RolloutConfig, ThoughtMarkers
from recast_train.targets import target_leaves
from recast_train.update import update


@dataclass(frozen=True)
class RlConfig:
    """The loop, the same for every method.

    Attributes:
        signal: numbers and rules of the constructors; `objective`: clip and KL; `rollout`: how a group is drawn.
        group_size: rollouts a prompt (the search width); `prompts_per_step` groups a step; `steps` batches.
        learning_rate: of AdamW without decay, after `warm_up` steps of linear rise.
        updates_per_batch: optimiser steps on one batch (off-policy from the second on).
        max_draws: batches drawn at most for one step by a constructor that redraws (dapo).
        evaluate_every: steps between figures on `validation_prompts` validation prompts.
        checkpoint_every: in steps; 0 never.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    signal: SignalConfig = field(default_factory=SignalConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    group_size: int = 32
    prompts_per_step: int = 32
    steps: int = 200
    learning_rate: float = 2e-4
    warm_up: int = 10
    updates_per_batch: int = 1
    max_draws: int = 10
    evaluate_every: int = 50
    validation_prompts: int = 500
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        positive = ("prompts_per_step", "steps", "updates_per_batch", "max_draws", "evaluate_every", "validation_prompts")
        for name in positive:
            require(getattr(self, name) >= 1, f"RlConfig.{name}", getattr(self, name), "must be at least 1")
        for name in ("warm_up", "checkpoint_every"):
            require(getattr(self, name) >= 0, f"RlConfig.{name}", getattr(self, name), "must be 0 or more")
        require(self.group_size >= 2, "RlConfig.group_size", self.group_size, "must be at least 2")
        require(self.learning_rate > 0, "RlConfig.learning_rate", self.learning_rate, "must be positive")


BUDGET = ("rollouts", "generated_tokens", "actor_rows", "actor_tokens", "optimiser_steps")


def train_rl(
    model: SidModel,
    catalog: Catalog,
    train: TrainPrompts,
    validation: Prompts,
    constructor: str,
    config: RlConfig,
    seed: int,
    writer: RunWriter,
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[str, int]:
    """Train `model` (the supervised start) in place from the writer's last checkpoint on; returns the budget it spent.

    Writes a row a step with the budget so far, a row a group (none where nothing is sampled), and validation figures.

    Raises:
        TrainError: the loss is not finite; the last checkpoint is kept.
    """
    reference = copy.deepcopy(model) if config.objective.kl else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    start, totals = _restore(writer, model, optimiser)
    step_of = _Step(model, reference, train, get_constructor(constructor), config, seed, optimiser, totals)
    chosen = np.random.default_rng(derive_seed(seed, "validation prompts")).permutation(len(validation))
    part = validation.take(np.sort(chosen[: config.validation_prompts]))
    if start == 0:
        writer.evaluation({"step": 0, **totals, **_figures(model, catalog, part, config.group_size)})
    for step in range(start + 1, config.steps + 1):
        row, group_rows = step_of(step)
        writer.step({"step": step, **totals, **row})
        if group_rows:
            writer.groups(group_rows)
        if step % config.evaluate_every == 0 or step == config.steps:
            writer.evaluation({"step": step, **totals, **_figures(model, catalog, part, config.group_size)})
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            with writer.checkpoint(step) as folder:
                save_state(folder, model, optimiser, totals=totals)
        on_step(step)
    return totals


def train_prompts(prompts: Prompts, catalog: Catalog, vocabulary: Vocabulary, thought: bool = False) -> TrainPrompts:
    """The train prompts as tokens, with the leaves of their targets; with `thought` they end where a thought begins."""
    return TrainPrompts(vocabulary.encode(prompts.history_NH, thought, prompts.chat_N), target_leaves(catalog, prompts))


@dataclass(frozen=True)
class _Step:
    """One step of the loop; adds what it spends to `totals`."""

    model: SidModel
    reference: SidModel
    train: TrainPrompts
    constructor: Constructor
    config: RlConfig
    seed: int
    optimiser: torch.optim.Optimizer
    totals: dict[str, int]

    def __call__(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The step's row and its group rows (none where nothing was sampled)."""
        config, name, clock = self.config, self.constructor.name, [time.perf_counter()]
        size = (config.prompts_per_step, config.group_size)
        of_step = derive_seed(self.seed, "step", step)
        signals, rollout, vocabulary = config.signal, config.rollout, self.model.vocabulary
        end, draws = vocabulary.thought_end, config.max_draws
        markers = None if end is None else ThoughtMarkers(end, vocabulary.begin)
        groups = draw_groups(self.model, self.train, self.constructor, signals, size, draws, of_step, rollout, markers)
        clock.append(time.perf_counter())
        signal = signal_of(groups, name, config.signal, derive_seed(self.seed, "signal", step))
        clock.append(time.perf_counter())
        log = self._update(step, groups, signal)
        clock.append(time.perf_counter())
        self._spend(groups, len(signal.plan.rows_N), int(log.pop("actor_tokens")))
        spans = dict(zip(("rollout", "signal", "update"), np.diff(clock).tolist(), strict=True))
        seconds = {f"seconds_{part}": span for part, span in spans.items()}
        return {**_signal_row(groups, signal), **log, **seconds}, _group_rows(step, groups, signal)

    def _update(self, step: int, groups: Groups, signal: Signal) -> dict[str, float]:
        device, config = self.model.device, self.config
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * (min(1.0, step / config.warm_up) if config.warm_up else 1.0)
        return update(
            self.model,
            self.reference,
            groups.tokens.to(device),
            _plan_to(signal.plan, device),
            kept_leaves(groups, signal).to(device),
            signal.group_size,
            self.optimiser,
            config.objective,
            config.updates_per_batch,
        )

    def _spend(self, groups: Groups, kept_rows: int, actor_tokens: int) -> None:
        updates = self.config.updates_per_batch
        self.totals["rollouts"] += groups.drawn
        self.totals["generated_tokens"] += groups.drawn * self.model.levels
        self.totals["actor_rows"] += kept_rows * updates
        self.totals["actor_tokens"] += actor_tokens
        self.totals["optimiser_steps"] += updates if kept_rows else 0


def _figures(model: SidModel, catalog: Catalog, part: Prompts, group_size: int) -> dict[str, float]:
    scores = score_prompts(model, catalog, part, EvaluationConfig())
    return {**scores.means(), "all_zero_expected": expected_all_zero(scores.probability_N, group_size)}


def _restore(writer: RunWriter, model: SidModel, optimiser: torch.optim.Optimizer) -> tuple[int, dict[str, int]]:
    folder = latest_checkpoint(writer.path)
    if folder is None:
        return 0, dict.fromkeys(BUDGET, 0)
    totals: Any = load_state(folder, model, optimiser)["totals"]
    return int(folder.name.split("-")[1]), totals


def _plan_to(plan: UpdatePlan, device: torch.device) -> UpdatePlan:
    columns = {name: getattr(plan, name).to(device) for name in ("rows_N", "advantages_N", "weights_N", "anchor_N")}
    return replace(plan, **columns)


def _signal_row(groups: Groups, signal: Signal) -> dict[str, float]:
    """The simulator's columns; a method that samples nothing has no regimes."""
    row: dict[str, float] = {}
    if groups.sampled:
        row |= {f"before_{name}": share for name, share in asdict(signal.regime_before).items()}
        row |= {f"after_{name}": share for name, share in asdict(signal.regime_after).items()}
    row["learnable"] = float(signal.learnable_P.float().mean())
    row["repaired"] = float(signal.repaired_P.float().mean())
    row["update_width"] = len(signal.plan.rows_N) / len(signal.learnable_P)
    return row


def _group_rows(step: int, groups: Groups, signal: Signal) -> dict[str, Any]:
    if not groups.sampled:
        return {}
    P, G = groups.leaf_PG.shape
    valid_P = torch.full((P,), G)
    return {
        "step": [step] * P,
        "prompt": groups.prompt_P.numpy(),
        "hits": signal.hits_before_P.numpy(),
        "valid": valid_P.numpy(),
        "regime": regime_codes(signal.hits_before_P, valid_P).numpy(),
        "repaired": signal.repaired_P.numpy(),
        "learnable": signal.learnable_P.numpy(),
    }
