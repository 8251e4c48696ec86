"""The keys of a recipe's RL loop."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recast_sim.configio import Checked
from recast_sim.signal import ObjectiveConfig, SignalConfig
from recast_train.model import TrainError
from recast_train.rollout import RolloutConfig


@dataclass(frozen=True)
class RlConfig(Checked, error=TrainError):
    """The loop, the same for every method.

    Attributes:
        signal: numbers and rules of the constructors; `objective`: clip and KL.
        rollout: how a group is drawn.
        prompts: "train" are those that supervision has seen, "held_back" those of `data.held_back`.
        train_prompts: so many of them are drawn and trained on again and again; 0 takes all.
        group_size: rollouts a prompt (the search width).
        prompts_per_step: groups in a batch.
        steps: batches of the run.
        learning_rate: of AdamW, after `warm_up` steps of linear rise.
        warm_up: steps over which the learning rate rises.
        weight_decay: of AdamW.
        max_norm: longer gradients are cut to this length; 0 cuts none.
        updates_per_batch: passes over one batch, each of `mini_batches` optimiser steps on parts of its rows (each rank's rows
            are parted); off-policy from the second step on.
        mini_batches: optimiser steps of one pass over a batch.
        micro_batch_tokens: positions, padding included, that one forward and backward pass computes at most: bounds the memory
            of an optimiser step and does not change it. A prompt with its rows is never cut, however long. 0: no limit.
        max_draws: batches drawn at most for one step by a constructor that redraws (dapo).
        evaluate_every: steps between figures on validation prompts.
        validation_prompts: of those figures, at most.
        checkpoint_every: in steps; 0 never.
        probe_every: steps between measurements of the gradient's noise (`probe_gradients`, on one process); 0 never.
    """

    signal: SignalConfig = field(default_factory=SignalConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    prompts: Literal["train", "held_back"] = "train"
    train_prompts: NonNegativeInt = 0
    group_size: Annotated[int, Field(ge=2, le=4096)] = 32
    prompts_per_step: PositiveInt = 32
    steps: PositiveInt = 200
    learning_rate: PositiveFloat = 2e-4
    warm_up: NonNegativeInt = 10
    weight_decay: NonNegativeFloat = 0.0
    max_norm: NonNegativeFloat = 0.0
    updates_per_batch: PositiveInt = 1
    mini_batches: PositiveInt = 1
    micro_batch_tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    max_draws: PositiveInt = 10
    evaluate_every: PositiveInt = 50
    validation_prompts: PositiveInt = 500
    checkpoint_every: NonNegativeInt = 50
    probe_every: NonNegativeInt = 0
