"""The policy-gradient loop over the environment: sample, construct the signal, update on the kept rows."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from recast_sim.runs import derive_seed
from recast_sim.runs.model_state import latest_checkpoint, load_state, save_state
from recast_sim.signal import Signal, behind_hints, get_constructor
from recast_sim.signal.groups import ScoredGroups, group_rows, signal_of, signal_row
from recast_sim.training.constructor_inputs import ConstructorInputs
from recast_sim.training.plan_update import UpdateError, plan_gradient_norm, update
from recast_sim.training.rl_prompts import groups_of_prompt, prompts_of_step, rl_environment
from recast_sim.training.training_config import TrainingConfig
from recast_sim.training.world_groups import draw_groups, roll_out
from recast_sim.world.environment import Environment
from recast_sim.world.evaluation import evaluate
from recast_sim.world.generators import torch_generator
from recast_sim.world.learning import Start, learning_figures
from recast_sim.world.policy import TreePolicy


class TrainingLog(Protocol):
    """Where a run's rows go: a `RunWriter`, or a lighter one for sweeps. `path` is None where there are no checkpoints."""

    @property
    def path(self) -> Path | None: ...

    def step(self, row: Mapping[str, Any]) -> None: ...

    def evaluation(self, row: Mapping[str, Any]) -> None: ...

    def groups(self, columns: Mapping[str, Any]) -> None: ...

    def checkpoint(self, step: int) -> AbstractContextManager[Path]: ...


def train(
    policy: TreePolicy,
    start: Start,
    config: TrainingConfig,
    seed: int,
    writer: TrainingLog,
    on_step: Callable[[int], None] = lambda step: None,
    learning: bool = True,
) -> None:
    """Train `policy` in place and write a row a step, evaluations and checkpoints; starts at the writer's last checkpoint.

    A step's randomness depends on the seed and the step alone, so a resumed run ends with the same numbers. `learning_figures`
    stand in the first and the last evaluation, and are None in the others.

    Args:
        policy: a copy of the start's.
        start: the policy to start from, which is the reference policy, and its environment.
        learning: whether to compute `learning_figures` at all; they cost as much as some tens of steps.

    Raises:
        UpdateError: the loss, its gradient or an evaluation is not finite; the last checkpoint is kept, and the message names
            it.
    """
    optimiser = _optimiser(policy, config)
    constructor = behind_hints(get_constructor(config.constructor), config.hint_levels)
    reference, environment = start.policy, rl_environment(start.environment, config)
    steps = config.batches(len(start.environment.train.x_ND))
    inputs = ConstructorInputs(constructor, reference, environment)
    done, totals = _restore(writer, policy, optimiser, inputs)
    if done == 0:
        writer.evaluation({"step": 0, **totals, **evaluate(policy, environment), **(start.figures if learning else {})})
    for step in range(done + 1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (min(1.0, step / config.warm_up) if config.warm_up else 1.0)
        with _guarded(writer, step):
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
            _check_finite(log)
        inputs.learn(groups)
        totals["rollouts"] += groups.drawn
        totals["actor_rows"] += len(signal.plan.rows_N) * config.updates_per_batch
        totals["actor_tokens"] = totals["actor_rows"] * policy.levels
        totals["optimiser_steps"] += int(log.pop("optimiser_steps"))
        writer.step({"step": step, **totals, **signal_row(signal), **log})
        writer.groups(group_rows(step, groups.prompt_P, signal))
        if step % config.evaluate_every == 0 or step == steps:
            figures = learning_figures(policy, start) if learning and step == steps else {}
            gaps, found = dict.fromkeys(start.figures) if learning else {}, evaluate(policy, environment)
            with _guarded(writer, step):
                _check_finite(found | figures)
            writer.evaluation({"step": step, **totals, **found, **gaps, **figures})
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            with writer.checkpoint(step) as folder:
                save_state(folder, policy, optimiser, totals=totals)
                inputs.save(folder)
        on_step(step)


@contextmanager
def _guarded(writer: TrainingLog, step: int) -> Iterator[None]:
    """Where training breaks off: say at which step, and which checkpoint is kept."""
    try:
        yield
    except UpdateError as error:
        last = None if writer.path is None else latest_checkpoint(writer.path)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise UpdateError(f"step {step}: {error}" + ("" if writer.path is None else f"; {kept}")) from error


def _check_finite(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UpdateError(f"{name}: {value}, the policy diverged; lower learning_rate")


def _groups_of_step(
    policy: TreePolicy, environment: Environment, config: TrainingConfig, inputs: ConstructorInputs, seed: int, step: int
) -> tuple[ScoredGroups, Signal]:
    def draw(attempt: int) -> ScoredGroups:
        generator = torch_generator(seed, "step", step, attempt)
        prompt_P = prompts_of_step(config, environment, seed, step, attempt, generator)
        how = (config.group_size, config.sampler, config.signal, generator, config.hint_levels, config.anchor_source)
        groups = roll_out(policy, environment, prompt_P, *how, config.near_miss_reward)
        return inputs.supply(groups, policy)

    of_step = derive_seed(seed, "signal", step)
    wanted = config.prompts_per_step * groups_of_prompt(config, environment)
    groups = draw_groups(draw, inputs.constructor, config.signal, wanted, config.max_draws, of_step)
    return groups, signal_of(groups, inputs.constructor, config.signal, torch_generator(of_step))


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
