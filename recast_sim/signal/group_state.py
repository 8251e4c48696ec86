"""The batch of groups that each step takes and returns: checked once here, trusted inside.

Axes: P prompts (groups), G rollouts of a group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.checks import as_tensor, bools, finite, finite_prompts, numbers, scores, valid_rows
from recast_sim.signal.reductions import constant, flags
from recast_sim.signal.signal_config import SignalConfig, SignalError

_ROWS = (
    "rewards_PG",
    "structural_PG",
    "valid_PG",
    "logprob_PG",
    "advantages_PG",
    "active_PG",
    "reference_logprob_PG",
)
_KNOWN = {  # what is known of a state by the fields that it is read from
    "advantages_PG": ("pair_N",),
    "positive_P": ("pair_N",),
    "active_PG": ("kept_N",),
    "anchor_slot_P": ("anchored_N",),
    "structural_PG": ("miss_scores_PG",),
    "rewards_PG": ("miss_scores_PG", "best_hit_P"),
    "valid_PG": ("miss_scores_PG", "best_hit_P"),
    "config": ("miss_scores_PG", "best_hit_P"),
}
_DEFAULTS = SignalConfig()


@dataclass(frozen=True)
class GroupState:
    """Groups on their way through repair, advantage and support. Steps return a new state, never write into one.

    Attributes:
        rewards_PG: float task rewards; 0 where a row is not valid.
        structural_PG: float in [0, 1], or None where the caller gave none.
        valid_PG: bool; rows that count as rollouts.
        has_anchor_P: bool; prompts whose ground truth may be injected.
        logprob_PG: behaviour log-probability of each rollout, or None.
        advantages_PG: what the advantage step has given so far.
        active_PG: bool; rows that the actor must see.
        anchor_slot_P: int64 row that holds an anchor, -1 where none.
        positive_P, negative_P: int64 rows of a contrastive pair, -1 where none.
        redraw_P: bool; groups that the constructor wants replaced by newly drawn ones.
        anchor_logprob_P: log pi of each prompt's anchor, or None; read through `anchor_weight.anchor_logprob`.
        anchor_weight_P: factor on the anchor's row that the constructor itself has set; None leaves it to
            `config.anchor_weighting`.
        baseline_P: the caller's running estimate of each prompt's mean reward, or None.
        reference_logprob_PG, anchor_reference_logprob_P: the reference policy's log-probabilities, or None.
        all_PG: bool, true everywhere. `valid_PG` and `active_PG` are this very tensor while they leave no row out, which
            spares the steps a masking.
        pair_N: ascending flat rows p * G + g of the positives and negatives where no other row has an advantage; None where
            a step has not said so.
        kept_N: those of `active_PG`, None where they have to be looked for.
        anchored_N: flat rows of the anchors, ascending, likewise.
        best_hit_P: what `pick_hit` finds, likewise.
        miss_scores_PG: the scores of `structural_PG` in every miss, anything in other rows, likewise.
    """

    rewards_PG: Tensor
    structural_PG: Tensor | None
    valid_PG: Tensor
    has_anchor_P: Tensor
    logprob_PG: Tensor | None
    advantages_PG: Tensor
    active_PG: Tensor
    anchor_slot_P: Tensor
    positive_P: Tensor
    negative_P: Tensor
    redraw_P: Tensor
    all_PG: Tensor
    config: SignalConfig
    generator: torch.Generator | None
    anchor_logprob_P: Tensor | None = None
    anchor_weight_P: Tensor | None = None
    baseline_P: Tensor | None = None
    reference_logprob_PG: Tensor | None = None
    anchor_reference_logprob_P: Tensor | None = None
    pair_N: Tensor | None = None
    kept_N: Tensor | None = None
    anchored_N: Tensor | None = None
    best_hit_P: Tensor | None = None
    miss_scores_PG: Tensor | None = None

    @property
    def hits_PG(self) -> Tensor:
        """Bool (P, G): valid rows whose reward is above `config.hit_above`."""
        return self.hit_flags().bool()

    @property
    def misses_PG(self) -> Tensor:
        """Bool (P, G): valid rows that are not hits."""
        return self.valid_PG & (self.rewards_PG <= self.config.hit_above)

    def hit_flags(self) -> Tensor:
        """`hits_PG` as 0 and 1 of the rewards' dtype."""
        hits = flags(torch.gt, self.rewards_PG, self.config.hit_above)
        return hits if self.valid_PG is self.all_PG else hits * self.valid_PG

    def valid_rewards(self) -> Tensor:
        """Rewards (P, G), -inf in rows that are not valid: a group has a hit where its highest is above `hit_above`."""
        return self.rewards_PG if self.valid_PG is self.all_PG else self.rewards_PG.masked_fill(~self.valid_PG, -torch.inf)

    def any_hit_P(self) -> Tensor:
        """Bool (P,): the group holds a hit."""
        return self.valid_rewards().amax(1) > self.config.hit_above

    def scores_PG(self) -> Tensor:
        """Structural scores (P, G); raises SignalError where the caller gave none."""
        if self.structural_PG is None:
            raise SignalError("structural_PG: missing, and this constructor orders rollouts by it; pass scores in [0, 1]")
        return self.structural_PG

    def scores_of_misses_PG(self) -> Tensor:
        """The same, to be read in misses alone: spares the table in which anchors have their own."""
        return self.scores_PG() if self.miss_scores_PG is None else self.miss_scores_PG

    def with_(self, *, later: Mapping[str, Callable[[], Tensor]] | None = None, **changes: Any) -> "GroupState":
        """The state with other fields; those of `later`, which have no default, are computed when they are first read.

        What is known is forgotten when a field changes that it is read from.
        """
        later = later or {}
        if unknown := (changes.keys() | later.keys()) - _FIELDS:
            raise TypeError(f"GroupState: no field {', '.join(sorted(unknown))}")
        state = object.__new__(GroupState)  # dataclasses.replace, a tenth of construct's time on a small batch
        own = state.__dict__
        own.update(self.__dict__)
        for table in (*changes, *later):
            own.update(dict.fromkeys(_KNOWN.get(table, ())))
        own.update(changes)
        for name, compute in later.items():
            own.pop(name, None)
            own["_later_" + name] = compute
        return state

    def __getattr__(self, name: str) -> Any:
        """A field of `later`: reached where the state has no such attribute yet."""
        compute = self.__dict__.get("_later_" + name)
        if compute is None:
            raise AttributeError(f"GroupState: no attribute {name!r}")
        return self.__dict__.setdefault(name, compute())


_FIELDS = {field.name for field in fields(GroupState)}


def group_state(
    rewards_PG: Any,
    structural_PG: Any = None,
    valid_PG: Any = None,
    has_anchor_P: Any = None,
    logprob_PG: Any = None,
    config: SignalConfig | None = None,
    generator: torch.Generator | None = None,
    *,
    anchor_logprob_P: Any = None,
    baseline_P: Any = None,
    reference_logprob_PG: Any = None,
    anchor_reference_logprob_P: Any = None,
) -> GroupState:
    """Check a batch of groups and wrap it as the first state.

    Args:
        rewards_PG: (P, G) finite numbers, torch, numpy or nested lists; integers become float32.
        structural_PG: (P, G) in [0, 1], optional.
        valid_PG: (P, G) bool, default all true. What a row that is not valid holds is never read.
        has_anchor_P: (P,) bool, default all false.
        logprob_PG: (P, G) floats, optional; needed by tie_rule "highest_logprob".
        anchor_logprob_P, anchor_reference_logprob_P: (P,) floats, optional; where a prompt gets no anchor they are never read.
        baseline_P: (P,) finite floats, optional.
        reference_logprob_PG: (P, G) floats, optional.

    Raises:
        SignalError: wrong shape, a value that is not finite or out of range, or a group without a valid row.
    """
    rewards = as_tensor(rewards_PG, "rewards_PG")
    if rewards.ndim != 2 or rewards.numel() == 0:
        raise SignalError(f"rewards_PG: shape {tuple(rewards.shape)} must be (prompts, rollouts), both at least 1")
    rewards = rewards if rewards.dtype in (torch.float32, torch.float64) else rewards.float()  # sums need more than 16 bits
    shape, device = rewards.shape, rewards.device
    all_PG = constant(True, shape, torch.bool, device)
    valid = valid_rows(valid_PG, all_PG)
    none_P = constant(-1, shape[:1], torch.int64, device)
    no_P = constant(False, shape[:1], torch.bool, device)

    def rows(value: Any, name: str) -> Tensor | None:
        return None if value is None else finite(numbers(value, name, rewards), name, valid, all_PG)

    def prompts(value: Any, name: str) -> Tensor | None:
        return None if value is None else numbers(value, name, rewards[:, 0])

    checked = finite(rewards, "rewards_PG", valid, all_PG)
    structural = None if structural_PG is None else numbers(structural_PG, "structural_PG", rewards)
    baseline = prompts(baseline_P, "baseline_P")
    return GroupState(
        rewards_PG=checked,
        structural_PG=None if structural is None else scores(structural, valid, all_PG),
        valid_PG=valid,
        has_anchor_P=no_P if has_anchor_P is None else bools(has_anchor_P, "has_anchor_P", shape[:1], device),
        logprob_PG=rows(logprob_PG, "logprob_PG"),
        advantages_PG=constant(0.0, shape, rewards.dtype, device),
        active_PG=valid,
        anchor_slot_P=none_P,
        positive_P=none_P,
        negative_P=none_P,
        redraw_P=no_P,
        all_PG=all_PG,
        config=config or _DEFAULTS,
        generator=generator,
        anchor_logprob_P=prompts(anchor_logprob_P, "anchor_logprob_P"),
        baseline_P=None if baseline is None else finite_prompts(baseline, "baseline_P"),
        reference_logprob_PG=rows(reference_logprob_PG, "reference_logprob_PG"),
        anchor_reference_logprob_P=prompts(anchor_reference_logprob_P, "anchor_reference_logprob_P"),
        anchored_N=none_P[:0],
    )


def append_row(state: GroupState) -> GroupState:
    """One more row at the end of every group, (P, G + 1): not valid and without content, room for an anchor."""

    def padded(rows_PG: Tensor | None) -> Any:
        return None if rows_PG is None else torch.nn.functional.pad(rows_PG, (0, 1))

    wider = {name: padded(getattr(state, name)) for name in _ROWS}
    valid_PG = wider["valid_PG"]
    return state.with_(**wider, all_PG=constant(True, valid_PG.shape, torch.bool, valid_PG.device))
