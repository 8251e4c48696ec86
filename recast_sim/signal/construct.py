"""From a batch of rollout groups to optimisation events: the one entry point of the signal module."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState, append_row, group_state
from recast_sim.signal.plan import UpdatePlan, make_plan
from recast_sim.signal.regime import Regime, regime_shares
from recast_sim.signal.registry import Constructor, get_constructor
from recast_sim.signal.signal_config import SignalConfig, SignalError

_MISSING = {
    "structural_PG": "orders rollouts by it; pass scores in [0, 1]",
    "has_anchor_P": "injects anchors, say which prompts have one",
    "logprob_PG": "needs the rollouts' log-probabilities",
    "anchor_logprob_P": "needs log pi(anchor)",
    "baseline_P": "needs the running mean reward of each prompt",
    "reference_logprob_PG": "needs the rollouts' log-probabilities under the reference policy",
    "anchor_reference_logprob_P": "needs the anchors' log-probabilities under the reference policy",
    "sids_PGL": "compares rollouts level by level; pass the codes of their semantic IDs",
    "targets_PTL": "compares rollouts with the targets level by level; pass the codes of their semantic IDs",
    "anchor_logprob_PL": "needs log pi of each level of the anchor",
    "entropy_PGL": "needs the policy's entropy at each level of a rollout",
}


@dataclass(frozen=True)
class Signal:
    """What a constructor makes of a batch (axes P prompts, G rollouts; one row more where the constructor appends).

    Nothing in it is shared with the caller's tables. It can be pickled.

    Attributes:
        constructor: its name.
        before, after: the groups as sampled and as the constructor left them.
        plan: the rows that the actor must see.
        learnable_P: bool; the plan holds a row of the group with an advantage other than 0.
        hits_before_P, hits_after_P: int64 hits of each group as sampled, and after anchors were placed.
    """

    constructor: str
    before: GroupState
    after: GroupState
    plan: UpdatePlan
    learnable_P: Tensor
    hits_before_P: Tensor
    hits_after_P: Tensor

    @property
    def group_size(self) -> int:
        """Rows of a group, by which `plan.rows_N` counts: p * group_size + g."""
        return self.advantages_PG.shape[1]

    @property
    def advantages_PG(self) -> Tensor:
        """The rows' numbers, (P, G); of a level-wise constructor their mean over the levels."""
        return self.after.advantages_PG

    @property
    def advantages_PGL(self) -> Tensor | None:
        """The levels' numbers of a level-wise constructor, (P, G, L), else None."""
        return self.after.advantages_PGL

    @property
    def active_PG(self) -> Tensor:
        """Bool (P, G): rows that the actor must see."""
        return self.after.active_PG

    @property
    def repaired_P(self) -> Tensor:
        """Bool (P,): the group was given an anchor."""
        return self.anchor_slot_P >= 0

    @property
    def anchor_slot_P(self) -> Tensor:
        """Row to write the anchor's tokens into, int64 (P,), -1 where none."""
        return self.after.anchor_slot_P

    @property
    def positive_P(self) -> Tensor:
        """The hit of a contrastive pair, int64 (P,), -1 where none."""
        return self.after.positive_P

    @property
    def negative_P(self) -> Tensor:
        """The miss of a contrastive pair, int64 (P,), -1 where none."""
        return self.after.negative_P

    @property
    def redraw_P(self) -> Tensor:
        """Bool (P,): groups to replace by newly drawn ones (dapo)."""
        return self.after.redraw_P

    @cached_property
    def regime_before(self) -> Regime:
        """Shares of regimes as sampled."""
        return regime_shares(self.hits_before_P, self.before.valid_PG.sum(1))

    @cached_property
    def regime_after(self) -> Regime:
        """Shares of regimes after anchors were placed."""
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
    sids_PGL: Any = None,
    targets_PTL: Any = None,
    anchor_sids_PL: Any = None,
    anchor_logprob_PL: Any = None,
    entropy_PGL: Any = None,
    config: SignalConfig | None = None,
    generator: torch.Generator | None = None,
) -> Signal:
    """Turn rollout groups into a `Signal` with its `UpdatePlan`.

    Args:
        constructor: a registered name ("grpo", "recast", ...) or a `Constructor`.
        rewards_PG, structural_PG, valid_PG, has_anchor_P, logprob_PG: see `group_state`.
        anchor_logprob_P: log pi of each prompt's anchor, needed by anchor_weighting "clipped" and "luffy" and by the
            constructors that say so in `needs`.
        length_PG: tokens of each row, needed by normaliser "tokens": one number where all rows are equally long, else (P, G),
            an anchor's slot with the anchor's length; (P, G + 1) for a constructor that appends a row.
        baseline_P, reference_logprob_PG, anchor_reference_logprob_P, entropy_PGL: see `group_state`; a constructor says in
            `needs` which it reads.
        sids_PGL, targets_PTL, anchor_sids_PL, anchor_logprob_PL: by level, see `group_state`; read as `needs` says.
        config: every rule and number; the defaults are the sources'.
        generator: for tie_rule "random".

    Raises:
        SignalError: unknown name, bad or missing input, a group size that the constructor does not take, or a constructor whose
            fields contradict each other.
    """
    chosen = get_constructor(constructor) if isinstance(constructor, str) else constructor
    given = {
        "structural_PG": structural_PG,
        "has_anchor_P": has_anchor_P,
        "logprob_PG": logprob_PG,
        "anchor_logprob_P": anchor_logprob_P,
        "baseline_P": baseline_P,
        "reference_logprob_PG": reference_logprob_PG,
        "anchor_reference_logprob_P": anchor_reference_logprob_P,
        "sids_PGL": sids_PGL,
        "targets_PTL": targets_PTL,
        "anchor_sids_PL": anchor_sids_PL,
        "anchor_logprob_PL": anchor_logprob_PL,
        "entropy_PGL": entropy_PGL,
    }
    for name in chosen.inputs:
        if given[name] is None:
            raise SignalError(f"{name}: missing; {chosen.name} {_MISSING[name]}")
    before = group_state(rewards_PG, valid_PG=valid_PG, config=config, generator=generator, **given)
    if chosen.rollouts and chosen.compares and before.rewards_PG.shape[1] < 2:
        raise SignalError(f"rewards_PG: group size 1 is too small for {chosen.name}, which compares rollouts; use 2 or more")
    hits_before_P = before.hit_flags().sum(1).long()
    after = chosen.apply(append_row(before) if chosen.appends else before)
    plan = make_plan(before, after, length_PG)
    moved_PG = after.moved_PG & after.active_PG
    return Signal(
        constructor=chosen.name,
        before=replace(before, generator=None),
        after=replace(after, generator=None),
        plan=plan,
        learnable_P=moved_PG.any(1),
        hits_before_P=hits_before_P,
        hits_after_P=after.hit_flags().sum(1).long(),
    )
