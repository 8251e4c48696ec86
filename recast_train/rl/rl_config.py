"""The keys of a recipe's RL loop."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recast_sim.configio import Checked
from recast_sim.signal import ObjectiveConfig, SignalConfig
from recast_sim.thought_methods import ThoughtMethod
from recast_train.model import TrainError, require
from recast_train.rollout import RolloutConfig


@dataclass(frozen=True)
class ThoughtGroups(Checked, error=TrainError):
    """Whether a group is one of thoughts, which are trained then, and by what; the method's constructor gives their numbers.

    Attributes:
        kind: "none": a prompt's rollouts share one thought, where there is any, and its tokens are not trained. "hard", "soft",
            "log": `group_size` thoughts of each prompt, with the reward of `ThoughtMethod`.
        answer, by_target: as in `ThoughtMethod`.
    """

    kind: Literal["none", "hard", "soft", "log"] = "none"
    answer: str = ""
    by_target: bool = False


@dataclass(frozen=True)
class RlConfig(Checked, error=TrainError):
    """The loop, the same for every method.

    Attributes:
        signal: numbers and rules of the constructors; `objective`: clip and KL.
        rollout: how a group is drawn; `thoughts`: whether it is one of thoughts.
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
    thoughts: ThoughtGroups = field(default_factory=ThoughtGroups)
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

    def thought_method(self, constructor: str) -> ThoughtMethod | None:
        """How groups of thoughts are trained with a constructor; None where they are no groups of thoughts.

        Raises:
            TrainError: keys that do not fit groups of thoughts.
            ThoughtError: a constructor that reads more than rewards, or redraws.
        """
        own = self.thoughts
        if own.kind == "none":
            unused = not (own.answer or own.by_target)
            require(unused, "rl.thoughts.kind", "'none'", "stands beside answer or by_target; set it to 'soft' or 'log'")
            return None
        longest, sampler = self.rollout.thought.max_tokens, self.rollout.method
        require(longest >= 1, "rl.rollout.thought.max_tokens", longest, f"samples no thought; {own.kind!r} needs 1 or more")
        require(sampler == "iid", "rl.rollout.method", repr(sampler), f"does not fit kind {own.kind!r}; set it to 'iid'")
        for name, value in (("rl.rollout.hint_levels", self.rollout.hint_levels), ("rl.probe_every", self.probe_every)):
            require(not value, name, value, f"is not made for groups of thoughts (kind {own.kind!r}); set it to 0")
        return ThoughtMethod(f"{own.kind} {constructor}", own.kind, constructor, own.answer, own.by_target)
