"""The keys of a recipe's `[sft]`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recast_sim.configio import Checked, Share
from recast_train.model import TrainError, require


@dataclass(frozen=True)
class SftConfig(Checked, error=TrainError):
    """Supervised training.

    Attributes:
        steps: at most, 0 keeps the model as it is; the learning rate rises over `warm_up` steps and falls to a twentieth along
            a cosine.
        stop: the step at which training ends on that schedule, for a start that is not fully trained; 0 is `steps`.
        batch: windows of a step.
        window: items of a window, all of them targets.
        crop: share of the windows that lose a random number of their first items.
        item_dropout: share of a window's items that are left out of it, others each step, so that no sequence can be learned
            by heart; the rest close up.
        learning_rate: the highest, of AdamW.
        warm_up: steps over which the learning rate rises.
        weight_decay: of AdamW.
        average: the share that a running mean of the weights keeps of itself each step (see `WeightAverage`), such as .998;
            that mean is what is validated and kept. 0: the weights themselves.
        evaluate_every: steps between validation passes (each is a checkpoint as well).
        validation_prompts: of a validation pass, at most.
        choose_by: what the kept weights are best at on the validation prompts: NLL, or NDCG@10 of the exact ranking of the
            whole catalog, which takes longer to measure.
        patience: validation passes without a better one after which training stops.
        label_smoothing: share of each target's mass that is spread over its legal siblings.
        max_norm: longer gradients are cut to this length.
    """

    steps: NonNegativeInt = 1200
    stop: NonNegativeInt = 0
    batch: PositiveInt = 64
    window: Annotated[int, Field(ge=2)] = 21
    crop: Share = 0.0
    item_dropout: Share = 0.0
    learning_rate: PositiveFloat = 0.001
    warm_up: NonNegativeInt = 100
    weight_decay: NonNegativeFloat = 0.1
    average: Share = 0.0
    label_smoothing: Share = 0.0
    max_norm: PositiveFloat = 1.0
    evaluate_every: PositiveInt = 100
    validation_prompts: PositiveInt = 2000
    choose_by: Literal["nll", "ndcg@10"] = "nll"
    patience: PositiveInt = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.stop <= self.steps, "SftConfig.stop", self.stop, f"must be at most steps ({self.steps})")

    @property
    def last(self) -> int:
        """The last step, at most."""
        return self.stop or self.steps
