"""From a batch of rollout groups to optimisation events: the one entry point of the signal module."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.checks import as_tensor, check_shape
from recast_sim.signal.group_state import GroupState, append_row, group_state
from recast_sim.signal.reductions import flags, flat_rows, groups_where
from recast_sim.signal.regime import Regime, regime_shares
from recast_sim.signal.registry import Constructor, get_constructor
from recast_sim.signal.signal_config import SignalConfig, SignalError
from recast_sim.signal.steps.anchor_weight import anchor_weight

_MISSING = {
    "structural_PG": "orders rollouts by it; pass scores in [0, 1]",
    "has_anchor_P": "injects anchors, say which prompts have one",
    "logprob_PG": "needs the rollouts' log-probabilities",
    "anchor_logprob_P": "needs log pi(anchor)",
    "baseline_P": "needs the running mean reward of each prompt",
    "reference_logprob_PG": "needs the rollouts' log-probabilities under the reference policy",
    "anchor_reference_logprob_P": "needs the anchors' log-probabilities under the reference policy",
}


@dataclass(frozen=True)
class UpdatePlan:
    """The rows that the actor must see, N of them, and how their losses are summed.

    loss = sum over rows of weights_N * rowloss(advantages_N) / normaliser, where a row's loss is summed over its tokens.

    Attributes:
        rows_N: int64 flat indices into (P, G), that is p * G + g, ascending.
        advantages_N: the rows' advantages.
        weights_N: factor on a row's loss; 1 but for anchors (`anchor_weighting`).
        anchor_N: bool, the row is an injected anchor, which no policy sampled.
        normaliser: the loss denominator by the config's rule; at least 1.
    """

    rows_N: Tensor
    advantages_N: Tensor
    weights_N: Tensor
    anchor_N: Tensor
    normaliser: float

    @property
    def coefficients_N(self) -> Tensor:
        """Factor on grad log pi of each row at the on-policy point: weights * advantages / normaliser."""
        return self.weights_N * self.advantages_N / self.normaliser

    def take(self, rows: Tensor) -> "UpdatePlan":
        """Some of the rows, by mask or index; the normaliser stays the whole plan's."""
        return self._each(lambda column_N: column_N[rows])

    def to(self, device: torch.device) -> "UpdatePlan":
        """The plan on a device."""
        return self._each(lambda column_N: column_N.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "UpdatePlan":
        columns = ("rows_N", "advantages_N", "weights_N", "anchor_N")
        return replace(self, **{name: change(getattr(self, name)) for name in columns})


@dataclass(frozen=True)
class Signal:
    """What a constructor makes of a batch (axes P prompts, G rollouts; one row more where the constructor appends).

    `learnable_P` is true where a group has a non-zero advantage, `repaired_P` where it was given an anchor;
    `regime_before` and `regime_after` describe the hits as sampled and after anchors were placed. `anchor_slot_P`,
    `positive_P` and `negative_P` are -1 where there is none; write the anchor's tokens into row `anchor_slot_P`.
    `redraw_P` marks groups to replace by newly drawn ones (dapo). What the plan does not need is counted
    when it is first read, from the caller's own tables where they needed no change: do not write into those before.
    """

    constructor: str
    before: GroupState
    after: GroupState
    plan: UpdatePlan

    @property
    def group_size(self) -> int:
        """Rows of a group, by which `plan.rows_N` counts: p * group_size + g."""
        return self.advantages_PG.shape[1]

    @property
    def advantages_PG(self) -> Tensor:
        return self.after.advantages_PG

    @property
    def active_PG(self) -> Tensor:
        return self.after.active_PG

    @cached_property
    def learnable_P(self) -> Tensor:
        if self.after.pair_N is not None:
            return self.positive_P >= 0
        return flags(torch.ne, self.advantages_PG, 0.0).amax(1).bool()

    @property
    def repaired_P(self) -> Tensor:
        return self.anchor_slot_P >= 0

    @property
    def anchor_slot_P(self) -> Tensor:
        return self.after.anchor_slot_P

    @property
    def positive_P(self) -> Tensor:
        return self.after.positive_P

    @property
    def negative_P(self) -> Tensor:
        return self.after.negative_P

    @property
    def redraw_P(self) -> Tensor:
        return self.after.redraw_P

    @cached_property
    def hits_before_P(self) -> Tensor:
        return self.before.hit_flags().sum(1).long()

    @cached_property
    def hits_after_P(self) -> Tensor:
        return self.after.hit_flags().sum(1).long()

    @cached_property
    def regime_before(self) -> Regime:
        return regime_shares(self.hits_before_P, self.before.valid_PG.sum(1))

    @cached_property
    def regime_after(self) -> Regime:
        return regime_shares(self.hits_after_P, self.after.valid_PG.sum(1))


def construct(
    constructor: str | Constructor,
    rewards_PG: Any,
    structural_PG: Any = None,
    *,
    valid_PG: Any = None,
    has_anchor_P: Any = None,
    logprob_PG: Any = None,
    anchor_logprob_P: Any = None,
    length_PG: Any = None,
    baseline_P: Any = None,
    reference_logprob_PG: Any = None,
    anchor_reference_logprob_P: Any = None,
    config: SignalConfig | None = None,
    generator: torch.Generator | None = None,
) -> Signal:
    """Turn rollout groups into a `Signal` with its `UpdatePlan`.

    Args:
        constructor: a registered name ("grpo", "recast", ...) or a `Constructor`.
        rewards_PG, structural_PG, valid_PG, has_anchor_P, logprob_PG: see `group_state`.
        anchor_logprob_P: log pi of each prompt's anchor, needed by anchor_weighting "clipped" and "luffy" and by the
            constructors that say so in `needs`.
        length_PG: tokens of each row (an anchor's slot counts with the anchor's length), needed by normaliser "tokens";
            (P, G + 1) for a constructor that appends a row.
        baseline_P, reference_logprob_PG, anchor_reference_logprob_P: what some constructors list in `needs`.
        config: every rule and number; the defaults are the sources'.
        generator: for tie_rule "random".

    Raises:
        SignalError: unknown name, bad or missing input, or a group size that the constructor does not take.
    """
    chosen = get_constructor(constructor) if isinstance(constructor, str) else constructor
    optional = {
        "structural_PG": structural_PG,
        "has_anchor_P": has_anchor_P,
        "logprob_PG": logprob_PG,
        "anchor_logprob_P": anchor_logprob_P,
        "baseline_P": baseline_P,
        "reference_logprob_PG": reference_logprob_PG,
        "anchor_reference_logprob_P": anchor_reference_logprob_P,
    }
    for name in chosen.inputs:
        if optional[name] is None:
            raise SignalError(f"{name}: missing; {chosen.name} {_MISSING[name]}")
    before = group_state(rewards_PG, valid_PG=valid_PG, config=config, generator=generator, **optional)
    if chosen.rollouts and chosen.compares and before.rewards_PG.shape[1] < 2:
        raise SignalError(f"rewards_PG: group size 1 is too small for {chosen.name}, which compares rollouts; use 2 or more")
    after = chosen.apply(append_row(before) if chosen.appends else before)
    return Signal(chosen.name, before, after, _plan(before, after, length_PG))


def _plan(before: GroupState, state: GroupState, length_PG: Any) -> UpdatePlan:
    if state.kept_N is None and state.active_PG is state.all_PG:
        rows = torch.arange(state.all_PG.numel(), device=state.all_PG.device)
        advantages = state.advantages_PG.flatten().clone()
    else:
        rows = groups_where(state.active_PG.reshape(-1)) if state.kept_N is None else state.kept_N
        advantages = state.advantages_PG.reshape(-1).index_select(0, rows)
    anchor, weights = torch.zeros_like(rows, dtype=torch.bool), torch.ones_like(advantages)
    P, G = state.rewards_PG.shape
    at_N = state.anchored_N
    if at_N is None:
        at_N = flat_rows(state.anchor_slot_P, groups_where(state.anchor_slot_P >= 0), G)
    if len(at_N):
        anchor = anchor.new_zeros(P * G).index_fill_(0, at_N, True).index_select(0, rows)
        weight_P = anchor_weight(state, before)
        if weight_P is not None:
            weights = weights.new_ones(P * G).index_copy_(0, at_N, weight_P[at_N // G]).index_select(0, rows)
    return UpdatePlan(
        rows_N=rows,
        advantages_N=advantages,
        weights_N=weights,
        anchor_N=anchor,
        normaliser=max(1.0, _normaliser(state, rows, length_PG)),
    )


def _normaliser(state: GroupState, rows_N: Tensor, length_PG: Any) -> float:
    P, G = state.rewards_PG.shape
    rule = state.config.normaliser
    if rule == "tokens":
        if length_PG is None:
            raise SignalError("length_PG: missing; normaliser 'tokens' needs the number of tokens of each row")
        length = as_tensor(length_PG, "length_PG", rows_N.device)
        check_shape(length, "length_PG", state.rewards_PG.shape)
        bad = state.valid_PG & ~((length >= 1) & torch.isfinite(length))
        if bool(bad.any()):
            p, g = bad.nonzero()[0].tolist()
            raise SignalError(f"length_PG: prompt {p}, rollout {g} is {length[p, g].item()}; a valid row has 1 token or more")
        return float(length.reshape(-1)[rows_N].sum())
    return float({"groups": P, "active_rows": len(rows_N), "all_rows": P * G}[rule])
