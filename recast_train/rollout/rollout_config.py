"""How a group is drawn: the keys of a recipe's rollout table."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from recast_train.model import require

Method = Literal["iid", "beam", "stochastic_beam"]


@dataclass(frozen=True)
class ThoughtConfig:
    """Free tokens between the prompt and the SID, one thought a prompt, as OpenOneRec's first stage.

    Attributes:
        max_tokens: of a thought, its end token included; 0 is no thought.
        temperature: divides the logits of the free tokens.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_tokens: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require(self.max_tokens >= 0, "ThoughtConfig.max_tokens", self.max_tokens, "must be 0 (no thought) or more")
        _require_temperature("ThoughtConfig.temperature", self.temperature)


@dataclass(frozen=True)
class RolloutConfig:
    """The sampler of a group.

    Attributes:
        method: "iid": independent draws. "beam": the leaves of a search as wide as the group, best first (OpenOneRec).
            "stochastic_beam": draws without replacement by Gumbel top-k (arXiv 1903.06059).
        temperature: divides the logits of a node's children, whatever the method; the behaviour policy is that softmax.
        thought: what is sampled before the SID.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Method = "iid"
    temperature: float = 1.0
    thought: ThoughtConfig = field(default_factory=ThoughtConfig)

    def __post_init__(self) -> None:
        methods = get_args(Method)
        require(self.method in methods, "RolloutConfig.method", self.method, f"must be one of {', '.join(methods)}")
        _require_temperature("RolloutConfig.temperature", self.temperature)


def _require_temperature(name: str, value: float) -> None:
    require(0 < value < math.inf, name, value, "must be positive and finite")
