"""The policy-gradient loop over the environment: sample, construct the signal, update on the kept rows."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from recast_sim.configio import Checked
from recast_sim.runs import derive_seed
from recast_sim.runs.model_state import latest_checkpoint, load_state, save_state
from recast_sim.signal import ObjectiveConfig, Signal, SignalConfig, behind_hints, get_constructor
from recast_sim.signal.groups import ScoredGroups, group_rows, signal_of, signal_row
from recast_sim.training.constructor_inputs import ConstructorInputs
from recast_sim.training.plan_update import plan_gradient_norm, update
from recast_sim.training.world_groups import AnchorSource, draw_groups, roll_out
from recast_sim.world.environment import Environment
from recast_sim.world.evaluation import evaluate
from recast_sim.world.generators import torch_generator
from recast_sim.world.learning import Start, learning_figures
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import Sampler


class TrainingError(ValueError):
    """A bad training config; the message names the field, the value and the fix."""


class TrainingLog(Protocol):
    """Where a run's rows go: a `RunWriter`, or a lighter one for sweeps. `path` is None where there are no checkpoints."""

    @property
    def path(self) -> Path | None: ...

    def step(self, row: Mapping[str, Any]) -> None: ...

    def evaluation(self, row: Mapping[str, Any]) -> None: ...

    def groups(self, columns: Mapping[str, Any]) -> None: ...

    def checkpoint(self, step: int) -> AbstractContextManager[Path]: ...


@dataclass(frozen=True)
class TrainingConfig(Checked, error=TrainingError):
    """One run of the loop.

    Attributes:
        constructor: a registered constructor; `signal` holds its numbers and rules, `objective` clip and KL.
        group_size: rollouts a prompt (the search width).
        prompts_per_step: groups in a batch; `steps` batches, whose prompts are drawn with replacement.
        passes: over the RL prompts, in a new order each time, in place of `steps`; 0 goes by `steps`.
        fresh_share: share of the RL prompts that the base policy was not trained on; the environment must have as many.
        anchor_source: what anchors are: the "log"'s targets, or what is rewarded ("reward").
        optimiser, learning_rate: "adam" or "sgd"; the rate rises linearly over the first `warm_up` steps.
        updates_per_batch: passes over one batch, each of `mini_batches` optimiser steps on parts of its groups (off-policy from
            the second on).
        sampler: "iid", "beam" or "stochastic_beam".
        hint_levels: codes of the target that every rollout is given; the rest is drawn, and only the rest is trained (prefix
            hints, after arXiv 2510.19807, where hints are text). Needs sampler "iid".
        max_draws: batches drawn at most for one step by a constructor that redraws (dapo).
        norm_like: rescale each gradient to the norm that this constructor's would have on the same groups; "" does not.
        evaluate_every, checkpoint_every: in steps; 0 checkpoints never.
    """

    constructor: str = "recast"
    signal: SignalConfig = field(default_factory=SignalConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    group_size: PositiveInt = 32
    prompts_per_step: PositiveInt = 64
    steps: PositiveInt = 100
    passes: NonNegativeFloat = 0.0
    fresh_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    anchor_source: AnchorSource = "log"
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 0.003
    warm_up: NonNegativeInt = 0
    updates_per_batch: PositiveInt = 1
    mini_batches: PositiveInt = 1
    sampler: Sampler = "iid"
    hint_levels: NonNegativeInt = 0
    max_draws: PositiveInt = 10
    norm_like: str = ""
    evaluate_every: PositiveInt = 10
    checkpoint_every: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if get_constructor(self.constructor).compares and self.group_size == 1:
            raise TrainingError(f"TrainingConfig.group_size: 1 is too small for {self.constructor}, which compares rollouts")
        if self.norm_like:
            get_constructor(self.norm_like)
        if self.hint_levels and self.sampler != "iid":
            raise TrainingError(f"TrainingConfig.hint_levels: {self.hint_levels} needs sampler 'iid', not {self.sampler!r}")

    def batches(self, prompts: int) -> int:
        """Steps of a run over so many RL prompts."""
        return max(1, round(self.passes * prompts / self.prompts_per_step)) if self.passes else self.steps


def train(
    policy: TreePolicy,
    start: Start,
    config: TrainingConfig,
    seed: int,
    writer: TrainingLog,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train `policy` in place and write a row a step, evaluations and checkpoints; starts at the writer's last checkpoint.

    A step's randomness depends on the seed and the step alone, so a resumed run ends with the same numbers. `learning_figures`
    stand in the first and the last evaluation, and are None in the others.

    Args:
        policy: a copy of the start's.
        start: the policy to start from, which is the reference policy, and its environment.

    Raises:
        UpdateError: the loss is not finite; the last checkpoint is kept.
    """
    optimiser = _optimiser(policy, config)
    constructor = behind_hints(get_constructor(config.constructor), config.hint_levels)
    reference, environment = start.policy, rl_environment(start.environment, config.fresh_share)
    steps = config.batches(len(environment.train.x_ND))
    inputs = ConstructorInputs(constructor, reference, environment)
    done, totals = _restore(writer, policy, optimiser, inputs)
    if done == 0:
        writer.evaluation({"step": 0, **totals, **evaluate(policy, environment), **start.figures})
    for step in range(done + 1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (min(1.0, step / config.warm_up) if config.warm_up else 1.0)
        groups, signal = _groups_of_step(policy, environment, config, inputs, seed, step)
        log = update(
            policy,
            reference,
            environment,
            groups,
            signal,
            optimiser,
            config.objective,
            config.updates_per_batch,
            config.mini_batches,
            _borrowed_norm(policy, environment, groups, config, derive_seed(seed, "signal", step)),
        )
        inputs.learn(groups)
        totals["rollouts"] += groups.drawn
        totals["actor_rows"] += len(signal.plan.rows_N) * config.updates_per_batch
        totals["actor_tokens"] = totals["actor_rows"] * policy.levels
        totals["optimiser_steps"] += int(log.pop("optimiser_steps"))
        writer.step({"step": step, **totals, **signal_row(signal), **log})
        writer.groups(group_rows(step, groups.prompt_P, signal))
        if step % config.evaluate_every == 0 or step == steps:
            figures = learning_figures(policy, start) if step == steps else dict.fromkeys(start.figures)
            writer.evaluation({"step": step, **totals, **evaluate(policy, environment), **figures})
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            with writer.checkpoint(step) as folder:
                save_state(folder, policy, optimiser, totals=totals)
                inputs.save(folder)
        on_step(step)


def _groups_of_step(
    policy: TreePolicy, environment: Environment, config: TrainingConfig, inputs: ConstructorInputs, seed: int, step: int
) -> tuple[ScoredGroups, Signal]:
    def draw(attempt: int) -> ScoredGroups:
        generator = torch_generator(seed, "step", step, attempt)
        prompt_P = _prompts(len(environment.train.x_ND), config, seed, step, attempt, generator)
        how = (config.group_size, config.sampler, config.signal, generator, config.hint_levels, config.anchor_source)
        groups = roll_out(policy, environment, prompt_P, *how)
        return inputs.supply(groups, policy)

    of_step = derive_seed(seed, "signal", step)
    groups = draw_groups(draw, inputs.constructor, config.signal, config.prompts_per_step, config.max_draws, of_step)
    return groups, signal_of(groups, inputs.constructor, config.signal, torch_generator(of_step))


def _prompts(count: int, config: TrainingConfig, seed: int, step: int, attempt: int, generator: torch.Generator) -> Tensor:
    """The prompts of a batch, (P,): drawn with replacement; with `passes` the next ones of the pass, but for redraws."""
    size = config.prompts_per_step
    if not config.passes or attempt:
        return torch.randint(count, (size,), generator=generator)
    place_P = torch.arange((step - 1) * size, step * size)
    orders = {p: torch.randperm(count, generator=torch_generator(seed, "pass", p)) for p in {*(place_P // count).tolist()}}
    return torch.stack([orders[p][i] for p, i in zip((place_P // count).tolist(), (place_P % count).tolist(), strict=True)])


def rl_environment(environment: Environment, fresh_share: float) -> Environment:
    """The environment whose train prompts are those of RL: as many, the given share of them fresh.

    Raises:
        TrainingError: the environment has too few fresh prompts.
    """
    count = len(environment.train.x_ND)
    fresh = round(fresh_share * count)
    if fresh > (there := len(environment.fresh.x_ND)):
        raise TrainingError(
            f"TrainingConfig.fresh_share: {fresh_share:g} of {count} prompts needs {fresh} fresh ones, the environment has "
            f"{there}; set environment.fresh_prompts"
        )
    return replace(environment, train=environment.train.first(count - fresh).joined(environment.fresh.first(fresh)))


def _borrowed_norm(
    policy: TreePolicy, environment: Environment, groups: ScoredGroups, config: TrainingConfig, seed: int
) -> float | None:
    if not config.norm_like:
        return None
    return plan_gradient_norm(policy, environment, groups, get_constructor(config.norm_like), config.signal, seed)


def _optimiser(policy: TreePolicy, config: TrainingConfig) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.SGD
    return kind(policy.parameters(), lr=config.learning_rate)


def _restore(
    writer: TrainingLog, policy: TreePolicy, optimiser: torch.optim.Optimizer, inputs: ConstructorInputs
) -> tuple[int, dict[str, int]]:
    folder = None if writer.path is None else latest_checkpoint(writer.path)
    inputs.load(folder)
    if folder is None:
        return 0, {"rollouts": 0, "actor_rows": 0, "actor_tokens": 0, "optimiser_steps": 0}
    totals: Any = load_state(folder, policy, optimiser)["totals"]
    return int(folder.name.split("-")[1]), totals
