"""The keys of a recipe's RL loop."""

from dataclasses import dataclass, field
from typing import ClassVar

from recast_sim.signal import ObjectiveConfig, SignalConfig
from recast_train.model import require
from recast_train.rollout import RolloutConfig


@dataclass(frozen=True)
class RlConfig:
    """The loop, the same for every method.

    Attributes:
        signal: numbers and rules of the constructors; `objective`: clip and KL.
        rollout: how a group is drawn.
        group_size: rollouts a prompt (the search width); `prompts_per_step` groups a step; `steps` batches.
        learning_rate: of AdamW, after `warm_up` steps of linear rise.
        max_norm: longer gradients are cut to this length; 0 cuts none.
        updates_per_batch: passes over one batch, each of `mini_batches` optimiser steps on parts of its rows (each rank's rows
            are parted); off-policy from the second step on.
        micro_batch_tokens: positions, padding included, that one forward and backward pass computes at most: bounds the memory
            of an optimiser step and does not change it. A prompt with its rows is never cut, however long. 0: no limit.
        max_draws: batches drawn at most for one step by a constructor that redraws (dapo).
        evaluate_every: steps between figures on `validation_prompts` validation prompts.
        checkpoint_every: in steps; 0 never.
        probe_every: steps between measurements of the gradient's noise (`probe_gradients`, on one process); 0 never.
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
    weight_decay: float = 0.0
    max_norm: float = 0.0
    updates_per_batch: int = 1
    mini_batches: int = 1
    micro_batch_tokens: int = 0
    max_draws: int = 10
    evaluate_every: int = 50
    validation_prompts: int = 500
    checkpoint_every: int = 50
    probe_every: int = 0

    def __post_init__(self) -> None:
        positive = ("prompts_per_step", "steps", "updates_per_batch", "mini_batches", "max_draws", "evaluate_every")
        for name in (*positive, "validation_prompts"):
            require(getattr(self, name) >= 1, f"RlConfig.{name}", getattr(self, name), "must be at least 1")
        for name in ("warm_up", "weight_decay", "max_norm", "micro_batch_tokens", "checkpoint_every", "probe_every"):
            require(getattr(self, name) >= 0, f"RlConfig.{name}", getattr(self, name), "must be 0 or more")
        require(self.group_size >= 2, "RlConfig.group_size", self.group_size, "must be at least 2")
        require(self.learning_rate > 0, "RlConfig.learning_rate", self.learning_rate, "must be positive")
