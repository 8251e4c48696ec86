"""The RL loop of the real trainer: sample, construct the signal, update on the kept rows. One loop for every constructor.

A step's prompts and draws depend on the seed and the step alone, not on the constructor or the number of processes: methods are
compared on the same prompts, and a run that was killed and resumed ends with the same numbers.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from recast_sim.catalog import Catalog
from recast_sim.runs import derive_seed
from recast_sim.signal import behind_hints, get_constructor
from recast_train.data import Prompts, sample_prompts
from recast_train.engine import Engine, Recorder, State
from recast_train.evaluate import QUICK, expected_all_zero, score_over_ranks
from recast_train.model import SidModel, Vocabulary, require
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rollout_groups import TrainPrompts, thought_markers
from recast_train.rl.step import Step
from recast_train.rollout import ThoughtConfig
from recast_train.rollout.targets import target_leaves
from recast_train.thought_scores import thought_scores_over_ranks

BUDGET = ("rollouts", "generated_tokens", "actor_rows", "actor_tokens", "optimiser_steps")


def train_rl(
    engine: Engine,
    model: SidModel,
    catalog: Catalog,
    train: TrainPrompts,
    validation: Prompts,
    constructor: str,
    config: RlConfig,
    seed: int,
    recorder: Recorder,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[State, dict[str, int]]:
    """Train from `model` (the supervised start) and the recorder's last checkpoint on; returns the weights and the budget.

    Writes a row a step with the budget so far, a row a group (none where nothing is sampled), and validation figures. All
    ranks call it with the same model.

    Raises:
        TrainError: the loss or its gradient is not finite; the last checkpoint is kept, and the message names it. Keys that
            do not fit each other (`RlConfig.thought_method`).
    """
    one = not config.probe_every or engine.world == 1
    require(one, "RlConfig.probe_every", config.probe_every, f"works on one process, not on {engine.world}; set it to 0")
    thoughts = config.thought_method(constructor)
    reference = engine.prepare(copy.deepcopy(model).requires_grad_(False)) if config.objective.kl else None
    prepared = engine.prepare(model)
    optimiser = torch.optim.AdamW(prepared.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    start, meta = recorder.restore(prepared, optimiser, ("totals",))
    totals: dict[str, int] = meta["totals"] if start else dict.fromkeys(BUDGET, 0)
    method = behind_hints(get_constructor(constructor), config.rollout.hint_levels)
    step_of = Step(engine, prepared, reference, train, method, config, seed, optimiser, totals, thoughts)
    part = sample_prompts(validation, config.validation_prompts, seed, "validation prompts")

    def evaluate(step: int) -> None:
        with recorder.guard(step):
            figures = validation_figures(engine, prepared, catalog, part, config.group_size)
            if config.rollout.thought.max_tokens:
                same = derive_seed(seed, "thoughts of evaluation")  # at each, so that what changes is the model
                figures |= thought_figures(engine, prepared, catalog, part, config.rollout.thought, same)
        recorder.evaluation({"step": step, **totals, **figures})

    if start == 0:
        evaluate(0)
    for step in range(start + 1, config.steps + 1):
        with recorder.guard(step):
            row, group_rows = step_of(step)
        recorder.step({"step": step, **totals, **row})
        if group_rows:
            recorder.groups(group_rows)
        if step % config.evaluate_every == 0 or step == config.steps:
            evaluate(step)
        if config.checkpoint_every and step % config.checkpoint_every == 0:
            recorder.save(step, prepared, optimiser, totals=totals)
        on_step(step)
    return engine.state(prepared), totals


def train_prompts(prompts: Prompts, catalog: Catalog, vocabulary: Vocabulary, thought: bool = False) -> TrainPrompts:
    """The train prompts as tokens, with the leaves of their targets; with `thought` they end where a thought begins."""
    return TrainPrompts(vocabulary.encode(prompts.history_NH, thought, prompts.chat_N), target_leaves(catalog, prompts))


def validation_figures(engine: Engine, model: nn.Module, catalog: Catalog, part: Prompts, group_size: int) -> dict[str, float]:
    """What an evaluation row says of the validation prompts; all ranks call it with the same model."""
    scores = score_over_ranks(engine, engine.replica(model), catalog, part, QUICK)
    return {
        **scores.means(),
        "log_likelihood": float(np.log(scores.probability_N).mean()),
        "all_zero_expected": expected_all_zero(scores.probability_N, group_size),
    }


def thought_figures(
    engine: Engine, model: nn.Module, catalog: Catalog, part: Prompts, thought: ThoughtConfig, seed: int
) -> dict[str, float]:
    """What an evaluation row says of the validation prompts behind one sampled thought each."""
    markers = thought_markers(engine.unwrap(model).vocabulary)
    scores = thought_scores_over_ranks(engine, engine.replica(model), catalog, part, thought, markers, seed)
    return {
        "thought_pass_at_1_greedy": float(scores.greedy_N.mean()),
        "thought_log_likelihood": float(scores.logprob_N.mean()),
    }
