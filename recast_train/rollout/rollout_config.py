"""How a group is drawn: the keys of a recipe's rollout table."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat

from recast_sim.configio import Checked
from recast_train.model import TrainError, require

Method = Literal["iid", "beam", "stochastic_beam"]


@dataclass(frozen=True)
class ThoughtConfig(Checked, error=TrainError):
    """Free tokens between the prompt and the SID, one thought a prompt, as OpenOneRec's first stage.

    Attributes:
        max_tokens: of a thought, its end token included; 0 is no thought.
        temperature: divides the logits of the free tokens.
    """

    max_tokens: NonNegativeInt = 0
    temperature: PositiveFloat = 1.0


@dataclass(frozen=True)
class RolloutConfig(Checked, error=TrainError):
    """The sampler of a group.

    Attributes:
        method: "iid": independent draws. "beam": the leaves of a search as wide as the group, best first (OpenOneRec).
            "stochastic_beam": draws without replacement by Gumbel top-k (arXiv 1903.06059).
        temperature: divides the logits of a node's children, whatever the method; the behaviour policy is that softmax.
        thought: what is sampled before the SID.
        hint_levels: codes of the prompt's first target that every rollout is given; the rest is drawn, and only the rest is
            trained (prefix hints, after arXiv 2510.19807, where hints are text). Needs method "iid".
    """

    method: Method = "iid"
    temperature: PositiveFloat = 1.0
    thought: ThoughtConfig = field(default_factory=ThoughtConfig)
    hint_levels: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = not self.hint_levels or self.method == "iid"
        require(fits, "RolloutConfig.hint_levels", self.hint_levels, f"needs method 'iid', not {self.method!r}")
