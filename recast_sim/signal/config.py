"""Every number and rule that a constructor may use, as explicit fields at the defaults of their sources."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

TieRule = Literal["first", "random", "highest_logprob"]
AnchorChoice = Literal["first", "random", "most_likely"]
AnchorWeighting = Literal["ratio_one", "clipped", "luffy", "annealed"]
Normaliser = Literal["groups", "active_rows", "all_rows", "tokens"]
Singleton = Literal["zero", "raw"]

_CHOICES = {
    "singleton": get_args(Singleton),
    "tie_rule": get_args(TieRule),
    "anchor_choice": get_args(AnchorChoice),
    "anchor_weighting": get_args(AnchorWeighting),
    "normaliser": get_args(Normaliser),
}


@dataclass(frozen=True)
class SignalConfig:
    """Fields of the signal module; a constructor reads only those that concern it.

    Attributes:
        hit_above: a valid rollout is a hit when its reward is above this (exact-hit rewards are 0 or 1).
        anchor_reward: task reward of an anchor row (it is the ground truth, so an exact hit).
        std_eps, std_ddof: grpo's denominator is std(ddof) + eps (arXiv 2402.03300; verl uses 1e-6 and 1, TRL 1e-4).
        singleton: what grpo gives the only valid rollout of a group: "zero", or its "raw" reward (verl).
        mean_eps: max_rl's denominator is mean + eps (arXiv 2602.02710).
        pods_width: rows that pods keeps of each group (arXiv 2504.13818).
        w_plus, w_minus: weights of the boundary pair (arXiv 2604.22169 uses 1 and 1).
        tie_rule: which of several equally good rows is taken; "random" needs a generator, "highest_logprob" log-probs.
        anchor_choice: which of a prompt's targets becomes the anchor.
        anchor_weighting: factor on an anchor's row, which no policy sampled: "ratio_one" (1, as the paper),
            "clipped" (importance weight pi(y) / 1 bounded below by anchor_floor), "luffy" (gradient of the shaped ratio
            pi / (pi + luffy_gamma), arXiv 2504.14945), "annealed" (1 - share of the batch's groups with a natural hit).
        anchor_floor, luffy_gamma: parameters of the two weightings above.
        normaliser: what the summed loss is divided by: "groups" (P), "active_rows" (kept rows, as the paper's loss
            average over the rows that are left), "all_rows" (P * G) or "tokens" (kept tokens, verl's token-mean).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    hit_above: float = 0.0
    anchor_reward: float = 1.0
    std_eps: float = 1e-6
    std_ddof: int = 1
    singleton: Singleton = "zero"
    mean_eps: float = 1e-6
    pods_width: int = 8
    w_plus: float = 1.0
    w_minus: float = 1.0
    tie_rule: TieRule = "first"
    anchor_choice: AnchorChoice = "first"
    anchor_weighting: AnchorWeighting = "ratio_one"
    anchor_floor: float = 0.1
    luffy_gamma: float = 0.1
    normaliser: Normaliser = "active_rows"

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            _require(getattr(self, name) in values, name, getattr(self, name), f"must be one of {', '.join(values)}")
        for name in ("hit_above", "anchor_reward", "std_eps", "mean_eps", "w_plus", "w_minus", "anchor_floor", "luffy_gamma"):
            _require(math.isfinite(getattr(self, name)), name, getattr(self, name), "must be finite")
        _require(self.anchor_reward > self.hit_above, "anchor_reward", self.anchor_reward, "must be above hit_above")
        _require(self.std_eps > 0, "std_eps", self.std_eps, "must be positive")
        _require(self.std_ddof in (0, 1), "std_ddof", self.std_ddof, "must be 0 or 1")
        _require(self.mean_eps >= 0, "mean_eps", self.mean_eps, "must not be negative")
        width = self.pods_width
        _require(isinstance(width, int) and width >= 2, "pods_width", width, "must be a whole number of at least 2")
        _require(self.w_plus > 0, "w_plus", self.w_plus, "must be positive")
        _require(self.w_minus >= 0, "w_minus", self.w_minus, "must be 0 or more")
        _require(0 < self.anchor_floor <= 1, "anchor_floor", self.anchor_floor, "must lie in (0, 1]")
        _require(self.luffy_gamma > 0, "luffy_gamma", self.luffy_gamma, "must be positive")


def _require(ok: bool, field: str, value: object, mend: str) -> None:
    if not ok:
        raise SignalError(f"SignalConfig.{field}: {value} {mend}")


class SignalError(ValueError):
    """Bad input to the signal module; the message names the argument, the first bad prompt and the mend."""
