"""The knobs of one run of the loop."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from recast_sim.configio import Checked
from recast_sim.errors import RecastError
from recast_sim.field_types import GroupSize, Part, Passes, Share
from recast_sim.signal import ObjectiveConfig, SignalConfig, get_constructor
from recast_sim.training.world_groups import AnchorSource
from recast_sim.world.sampling import Sampler


class TrainingError(RecastError):
    """A bad training config; the message names the field, the value and the fix."""


@dataclass(frozen=True)
class TrainingConfig(Checked, error=TrainingError):
    """One run of the loop.

    Attributes:
        constructor: a registered constructor; `signal` holds its numbers and rules, `objective` clip and KL.
        group_size: rollouts a prompt (the search width).
        prompts_per_step: groups in a batch.
        steps: batches of the run; their prompts are drawn with replacement.
        passes: over the RL prompts, in a new order each time, in place of `steps`; 0 goes by `steps`.
        fresh_share: share of the RL prompts that the base policy was not trained on; the environment must have as many.
        every_target: a prompt stands in its batch once for each of its targets, which is the anchor of a group of its own:
            supervision on whole lists. Hits are still hits of any target. Needs anchor_source "log".
        anchor_source: what anchors are: the "log"'s targets, or what is rewarded ("reward").
        near_miss_reward: reward of a miss, times its structural score: graded rewards. Hits stay exact where
            `signal.hit_above` is as high.
        optimiser, learning_rate: "adam" or "sgd"; the rate rises linearly over the first `warm_up` steps.
        warm_up: steps over which the learning rate rises.
        updates_per_batch: passes over one batch, each of `mini_batches` optimiser steps on parts of its groups (off-policy from
            the second on).
        mini_batches: optimiser steps of one pass over a batch.
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
    group_size: GroupSize = 32
    prompts_per_step: PositiveInt = 64
    steps: PositiveInt = 100
    passes: Passes = 0.0
    fresh_share: Part = 0.0
    every_target: bool = False
    anchor_source: AnchorSource = "log"
    near_miss_reward: Share = 0.0
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
        if self.every_target and self.anchor_source != "log":
            raise TrainingError(
                f"TrainingConfig.every_target: takes the log's targets, not anchor_source {self.anchor_source!r}; leave one out"
            )
        if self.near_miss_reward > self.signal.hit_above:
            raise TrainingError(
                f"TrainingConfig.near_miss_reward: {self.near_miss_reward} is above signal.hit_above, "
                f"{self.signal.hit_above}: near misses would count as hits; set signal.hit_above to it"
            )

    def batches(self, prompts: int) -> int:
        """Steps of a run over so many RL prompts."""
        return max(1, round(self.passes * prompts / self.prompts_per_step)) if self.passes else self.steps
