"""Supervision that goes on from the supervised start: what RL's steps would have given if they had been supervised ones.

It is trained as the start was (windows in which every item is a target, dropout, weight decay, a schedule of its own), which
the constructor "sft", one target a prompt on RL's prompts, is not.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recast_sim.comparing import Method
from recast_sim.runs import derive_seed
from recast_sim.runs.reader import read_manifest, read_run
from recast_sim.signal import get_constructor
from recast_train.data import Dataset, sample_prompts
from recast_train.model import SidModel
from recast_train.pipeline.recipe import Recipe
from recast_train.pipeline.run_task import Task
from recast_train.pipeline.stages import supervised_from, trained_stage
from recast_train.rl.rl_loop import BUDGET, validation_figures
from recast_train.supervised.sft_config import SftConfig
from recast_train.supervised.windows import Windows

Equal = Literal["steps", "targets"]


@dataclass(frozen=True)
class Continued(Method):
    """Continued supervision as a method of a study; its constructor only says that nothing is sampled.

    `equal`: its optimiser steps are RL's, and so many windows a step as the start had ("steps"), or so few that a step has
    about as many targets as RL's has prompts ("targets").
    """

    equal: Equal = "steps"


def continued(equal: Equal) -> Continued:
    """The method of a name."""
    return Continued(f"continued, equal {equal}", get_constructor("sft"), {}, equal=equal)


def continued_settings(config: Recipe, dataset: Dataset, equal: Equal, rate: float) -> SftConfig:
    """The start's settings over RL's steps and warm-up; judged once, at the end, so that no step is chosen."""
    rl, sft = config.rl, config.sft
    batch = sft.batch
    if equal == "targets":
        windows = Windows(dataset, sft.window, sft.batch, 0)
        batch = max(1, round(rl.prompts_per_step / windows.targets))
    return replace(
        sft, steps=rl.steps, stop=0, warm_up=rl.warm_up, learning_rate=rate, batch=batch, evaluate_every=rl.steps, patience=1
    )


def continue_supervision(task: Task, method: Continued, rate: float, folder: Path) -> SidModel:
    """The model after continued supervision from the start."""
    settings = continued_settings(task.config, task.dataset, method.equal, rate)
    return supervised_from(task, settings, folder, derive_seed(task.seed, "continued supervision"))


def continued_evals(task: Task, folder: Path, model: SidModel) -> list[dict[str, Any]]:
    """Rows like those of RL's validation evaluations, of the start and of the end, on the same prompts."""
    rl = task.config.rl
    part = sample_prompts(task.validation, rl.validation_prompts, derive_seed(task.seed, "rl"), "validation prompts")
    steps = read_run(folder).steps
    spent = dict.fromkeys(BUDGET, 0)
    ends = {0: trained_stage(task, task.root / "sft"), int(read_manifest(folder)["summary"]["steps"]): model}
    rows = []
    for step, own in ends.items():
        tokens = int(steps["tokens"].sum()) if step else 0
        figures = validation_figures(task.engine, own, task.catalog, part, rl.group_size)
        rows.append({"step": step, **spent, "actor_tokens": tokens, "optimiser_steps": step, **figures})
    return rows
