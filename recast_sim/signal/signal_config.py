"""Every number and rule that a constructor may use, as explicit fields at the defaults of their sources."""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, get_args

from recast_sim.errors import RecastError

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
_POSITIVE = (
    "std_eps",
    "whiten_eps",
    "gpg_norm",
    "bnpo_max_weight",
    "positive_weight",
    "rank_weight",
    "window_span",
    "care_scale",
    "care_delta",
    "sdpo_beta",
    "w_plus",
    "w_anchor",
    "luffy_gamma",
    "sibling_eps",
    "lens_alpha",
    "zvp_alpha",
    "reward_temperature",
)
_NOT_NEGATIVE = (
    "mean_eps",
    "window_low",
    "w_minus",
    "anchor_power",
    "sibling_weight",
    "nll_weight",
    "ada_tau",
    "listwise_weight",
    "mixture_gamma",
)


class _Strict:
    """pydantic's `Strict`, which it takes a tenth of a second to import: from a file too, no text and no True is a number."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> Any:
        return {**handler(kind), "strict": True}


Real = Annotated[float, _Strict()]
Whole = Annotated[int, _Strict()]
_NUMBERS: dict[Any, tuple[type, ...]] = {Real: (int, float), Whole: (int,)}
_SMALLEST, _LARGEST = 1e-20, 1e7
_WHOLE = {"pass_k": 1, "care_negatives": 1, "sdpo_negatives": 1, "pods_width": 2}


@dataclass(frozen=True)
class SignalConfig:
    """Fields of the signal module; a constructor reads only those that concern it.

    Attributes:
        hit_above: a valid rollout is a hit when its reward is above this (exact-hit rewards are 0 or 1).
        anchor_reward: task reward of an anchor row (it is the ground truth, so an exact hit).
        std_eps, std_ddof: grpo's denominator is std(ddof) + eps (arXiv 2402.03300; verl uses 1e-6 and 1, TRL 1e-4).
        singleton: what grpo gives the only valid rollout of a group: "zero", or its "raw" reward (verl).
        mean_eps: the denominator of max_rl and reward_share is mean + eps (arXiv 2602.02710).
        whiten_eps: over the batch reinforce_pp divides by sqrt(var + eps) (verl's masked_whiten), spo by std + eps.
        gpg_norm: gpg divides by it (verl's f_norm).
        bnpo_max_weight: bnpo's factor 1 / Beta density is at most this (its code).
        pass_k: k of pass_at_k (arXiv 2508.10751).
        positive_weight: w_reinforce's lambda on hits (arXiv 2506.01347).
        virtual_reward: reward of ngrpo's virtual row (arXiv 2509.18851).
        rank_weight: weight of ReRe's ranking reward beside the task reward (arXiv 2510.12211).
        window_low, window_span: wpauc's window of false-positive rates, alpha and d of arXiv 2604.22504 (defaults ours).
        care_negatives, care_scale, care_delta: negatives of a subgroup, the factor on them, and the pseudo reward of the
            rescue (arXiv 2512.19554).
        sdpo_negatives, sdpo_beta: negatives of each target and beta of s_dpo (arXiv 2406.09215).
        pods_width: rows that pods keeps of each group (arXiv 2504.13818).
        w_plus, w_minus: weights of the boundary pair (arXiv 2604.22169 uses 1 and 1); at w_minus 0 there is no negative.
        w_anchor: advantage of an anchor that stands alone in an all-zero group (hybrid, grpo_anchor, rloo_anchor; ours).
        anchor_power: tempered_anchor weighs the anchor by pi(anchor) to this power (ours): 1 is the policy gradient of
            Pass@1, 0 is sft.
        sibling_eps, sibling_weight: sibling advantages' denominator is std + eps; their weight beside grpo (arXiv 2602.10699).
        lens_alpha: weight of all-zero groups in lens (arXiv 2510.08696).
        zvp_alpha: weight of groups without variance in rl_zvp (arXiv 2509.21880).
        reward_temperature: exp_reward_sft weighs by exp(reward / this) (arXiv 2603.10279; default ours).
        chord_mu: weight of supervision in chord (arXiv 2508.11408).
        nll_weight: weight of supervision in grpo_sr (arXiv 2604.14878; default ours).
        ada_tau: ada_grpo trains on rollouts where this share of them is likelier than the target (arXiv 2606.08480; default
            ours).
        mixture_gamma: mixture_anchor and composite weigh the anchor by pi / (pi + mixture_gamma) (ours); 0: sft.
        listwise_weight: weight of the softmax over anchor and misses in beam_listwise and composite (ours).
        hit_share: composite's share of the group's own hits, in [0, 1]; the rest is the target's (ours).
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

    hit_above: Real = 0.0
    anchor_reward: Real = 1.0
    std_eps: Real = 1e-6
    std_ddof: Whole = 1
    singleton: Singleton = "zero"
    mean_eps: Real = 1e-6
    whiten_eps: Real = 1e-8
    gpg_norm: Real = 1.0
    bnpo_max_weight: Real = 1e6
    pass_k: Whole = 4
    positive_weight: Real = 0.1
    virtual_reward: Real = 1.0
    rank_weight: Real = 1.0
    window_low: Real = 0.0
    window_span: Real = 0.5
    care_negatives: Whole = 4
    care_scale: Real = 0.5
    care_delta: Real = 0.1
    sdpo_negatives: Whole = 3
    sdpo_beta: Real = 1.0
    pods_width: Whole = 8
    w_plus: Real = 1.0
    w_minus: Real = 1.0
    w_anchor: Real = 0.3
    anchor_power: Real = 1.0
    sibling_eps: Real = 1e-4
    sibling_weight: Real = 1.0
    lens_alpha: Real = 0.25
    zvp_alpha: Real = 0.1
    reward_temperature: Real = 0.5
    chord_mu: Real = 0.1
    nll_weight: Real = 0.1
    ada_tau: Real = 0.5
    mixture_gamma: Real = 5e-4
    listwise_weight: Real = 1.0
    hit_share: Real = 0.0
    tie_rule: TieRule = "first"
    anchor_choice: AnchorChoice = "first"
    anchor_weighting: AnchorWeighting = "ratio_one"
    anchor_floor: Real = 0.1
    luffy_gamma: Real = 0.1
    normaliser: Normaliser = "active_rows"

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            _require(getattr(self, name) in values, name, getattr(self, name), f"must be one of {', '.join(values)}")
        check_numbers(self)
        _require(self.anchor_reward > self.hit_above, "anchor_reward", self.anchor_reward, "must be above hit_above")
        for name in _POSITIVE:
            _require(getattr(self, name) > 0, name, getattr(self, name), "must be positive")
        for name in _NOT_NEGATIVE:
            _require(getattr(self, name) >= 0, name, getattr(self, name), "must be 0 or more")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            _require(isinstance(value, int) and value >= least, name, value, f"must be a whole number of at least {least}")
        _require(self.std_ddof in (0, 1), "std_ddof", self.std_ddof, "must be 0 or 1")
        _require(self.window_low < 1, "window_low", self.window_low, "must be below 1")
        _require(self.window_low + self.window_span <= 1, "window_span", self.window_span, "must end the window at 1 or below")
        _require(0 < self.chord_mu < 1, "chord_mu", self.chord_mu, "must lie in (0, 1)")
        _require(0 <= self.hit_share <= 1, "hit_share", self.hit_share, "must lie in [0, 1]")
        _require(0 < self.anchor_floor <= 1, "anchor_floor", self.anchor_floor, "must lie in (0, 1]")


def check_numbers(config: Any) -> None:
    """Raise SignalError unless every number of a config is a plain one of its field's type, which float32 can reckon with.

    Sums over a batch of products of a few of them must not overflow.
    """
    for field in fields(config):
        value, wanted = getattr(config, field.name), _NUMBERS.get(field.type)
        if wanted is not None:
            plain = isinstance(value, wanted) and not isinstance(value, bool)
            _require(
                plain, field.name, repr(value), "must be a number" if float in wanted else "must be a whole number", config
            )
            _require(math.isfinite(value), field.name, value, "must be finite", config)
            sane = value == 0 or _SMALLEST <= abs(value) <= _LARGEST
            _require(sane, field.name, value, f"must be 0 or of a size from {_SMALLEST:g} to {_LARGEST:g}", config)


def _require(ok: bool, field: str, value: object, fix: str, config: Any = None) -> None:
    if not ok:
        raise SignalError(f"{'SignalConfig' if config is None else type(config).__name__}.{field}: {value} {fix}")


class SignalError(RecastError):
    """Bad input to the signal module; the message names the argument, the first bad prompt and the fix."""
