"""The batch of groups that each step takes and returns: checked once here, trusted inside.

Axes: P prompts (groups), G rollouts of a group, L levels of a semantic ID (SID), T targets of a prompt.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from recast_sim.signal.checks import as_tensor, bools, codes, finite, finite_prompts, numbers, scores, shaped, valid_rows
from recast_sim.signal.reductions import flags
from recast_sim.signal.signal_config import SignalConfig, SignalError

_DEFAULTS = SignalConfig()


@dataclass(frozen=True)
class GroupState:
    """Groups on their way through repair, advantage and support.

    A step returns a new state, by `dataclasses.replace`. What the plan holds follows from these fields alone.

    Attributes:
        rewards_PG: float task rewards; 0 where a row is not valid.
        structural_PG: float in [0, 1], or None where the caller gave none.
        valid_PG: bool; rows that count as rollouts.
        has_anchor_P: bool; prompts whose ground truth may be injected.
        logprob_PG: behaviour log-probability of each rollout, or None.
        advantages_PG: a number for each row; of a level-wise constructor the mean over the levels of `advantages_PGL`.
        active_PG: bool; rows that the actor must see.
        anchor_slot_P: int64 row that holds an anchor, -1 where none.
        positive_P, negative_P: int64 rows of a contrastive pair (a hit, a miss), -1 where none.
        redraw_P: bool; groups that the constructor wants replaced by newly drawn ones.
        config: numbers and rules.
        generator: for random ties, or None.
        anchor_logprob_P: log pi of each prompt's anchor, or None; read through `anchor_weight.anchor_logprob`.
        anchor_weight_P: factor on the anchor's row that the constructor itself has set; None leaves it to
            `config.anchor_weighting`.
        baseline_P: the caller's running estimate of each prompt's mean reward, or None.
        reference_logprob_PG, anchor_reference_logprob_P: the reference policy's log-probabilities, or None.
        advantages_PGL: a number for each level of a row, or None where all levels of a row get `advantages_PG`. Set both by
            `levels.by_level`.
        sids_PGL: int64 codes of each row's SID, the anchor's where one was placed, or None.
        targets_PTL: int64 codes of the prompt's targets, -1 on every level where a prompt has fewer, or None.
        anchor_sids_PL: int64 codes of each prompt's anchor, or None.
        anchor_logprob_PL: log pi of each level of the anchor given the levels before it, or None.
        entropy_PGL: entropy (nats) of the policy at each level on the way to the row's SID, or None.
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
    config: SignalConfig
    generator: torch.Generator | None
    anchor_logprob_P: Tensor | None = None
    anchor_weight_P: Tensor | None = None
    baseline_P: Tensor | None = None
    reference_logprob_PG: Tensor | None = None
    anchor_reference_logprob_P: Tensor | None = None
    advantages_PGL: Tensor | None = None
    sids_PGL: Tensor | None = None
    targets_PTL: Tensor | None = None
    anchor_sids_PL: Tensor | None = None
    anchor_logprob_PL: Tensor | None = None
    entropy_PGL: Tensor | None = None

    @property
    def hits_PG(self) -> Tensor:
        """Bool (P, G): valid rows whose reward is above `config.hit_above`."""
        return self.hit_flags().bool()

    @property
    def misses_PG(self) -> Tensor:
        """Bool (P, G): valid rows that are not hits."""
        return self.valid_PG & (self.rewards_PG <= self.config.hit_above)

    @property
    def moved_PG(self) -> Tensor:
        """Bool (P, G): rows with an advantage other than 0, on any level."""
        if self.advantages_PGL is not None:
            return (self.advantages_PGL != 0).any(2)
        return flags(torch.ne, self.advantages_PG, 0.0).bool()

    def hit_flags(self) -> Tensor:
        """`hits_PG` as 0 and 1 of the rewards' dtype."""
        return flags(torch.gt, self.rewards_PG, self.config.hit_above) * self.valid_PG

    def valid_rewards(self) -> Tensor:
        """Rewards (P, G), -inf in rows that are not valid: a group has a hit where its highest is above `hit_above`."""
        return self.rewards_PG.masked_fill(~self.valid_PG, -torch.inf)

    def any_hit_P(self) -> Tensor:
        """Bool (P,): the group holds a hit."""
        return self.valid_rewards().amax(1) > self.config.hit_above

    def scores_PG(self) -> Tensor:
        """Structural scores (P, G); raises SignalError where the caller gave none."""
        return self.given("structural_PG", "orders rollouts by it; pass scores in [0, 1]")

    def given(self, name: str, why: str) -> Tensor:
        """The optional field `name`. Raises SignalError saying why the constructor needs it, where the caller gave none."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise SignalError(f"{name}: missing; this constructor {why}")
        return value


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
    sids_PGL: Any = None,
    targets_PTL: Any = None,
    anchor_sids_PL: Any = None,
    anchor_logprob_PL: Any = None,
    entropy_PGL: Any = None,
) -> GroupState:
    """Check a batch of groups and wrap it as the first state. Everything is copied: the caller's tables may be refilled.

    Args:
        rewards_PG: (P, G) finite numbers, torch, numpy or nested lists, in any layout; all but float64 become float32.
        structural_PG: (P, G) in [0, 1], optional.
        valid_PG: (P, G) bool, default all true. What a row that is not valid holds is never read.
        has_anchor_P: (P,) bool, default all false.
        logprob_PG: (P, G) floats, optional; needed by tie_rule "highest_logprob".
        config: default `SignalConfig()`.
        generator: for tie_rule "random".
        anchor_logprob_P, anchor_reference_logprob_P: (P,) floats, optional; where a prompt gets no anchor they are never read.
        baseline_P: (P,) finite floats, optional.
        reference_logprob_PG: (P, G) floats, optional.
        sids_PGL: (P, G, L) integer codes of each row's SID, optional; needed by level-wise constructors.
        targets_PTL: (P, T, L) or (P, L) integer codes of the targets, -1 on every level of a target that is not there.
        anchor_sids_PL: (P, L) integer codes of the anchors; default the first target.
        anchor_logprob_PL: (P, L) floats; where a prompt gets no anchor they are never read.
        entropy_PGL: (P, G, L) floats of 0 or more.

    Raises:
        SignalError: wrong shape, a value that is not finite or out of range, or a group without a valid row.
    """
    rewards = as_tensor(rewards_PG, "rewards_PG")
    if rewards.ndim != 2 or rewards.numel() == 0:
        raise SignalError(f"rewards_PG: shape {tuple(rewards.shape)} must be (prompts, rollouts), both at least 1")
    if rewards.is_complex():
        raise SignalError(f"rewards_PG: dtype {rewards.dtype} must be real numbers")
    rewards = rewards if rewards.dtype in (torch.float32, torch.float64) else rewards.float()  # sums need more than 16 bits
    shape, device = rewards.shape, rewards.device
    P, G = shape
    valid = valid_rows(valid_PG, rewards)
    none_P = torch.full((P,), -1, device=device)

    def rows(value: Any, name: str) -> Tensor | None:
        return None if value is None else finite(numbers(value, name, rewards), name, valid)

    def prompts(value: Any, name: str) -> Tensor | None:
        return None if value is None else numbers(value, name, rewards[:, 0])

    def levels(value: Any, name: str, *shape: int | None) -> Tensor | None:
        return None if value is None else shaped(as_tensor(value, name, device).to(rewards.dtype), name, shape)

    structural = None if structural_PG is None else numbers(structural_PG, "structural_PG", rewards)
    baseline = prompts(baseline_P, "baseline_P")
    sids = None if sids_PGL is None else codes(sids_PGL, "sids_PGL", (P, G, None), device)
    L = None if sids is None else sids.shape[2]
    targets = None if targets_PTL is None else codes(targets_PTL, "targets_PTL", (P, None, L), device)
    anchors = None if targets is None else targets[:, 0]
    if anchor_sids_PL is not None:
        anchors = codes(anchor_sids_PL, "anchor_sids_PL", (P, L), device)
    entropy = levels(entropy_PGL, "entropy_PGL", P, G, L)
    return GroupState(
        rewards_PG=finite(rewards, "rewards_PG", valid, squares=True),
        structural_PG=None if structural is None else scores(structural, valid),
        valid_PG=valid,
        has_anchor_P=none_P > 0 if has_anchor_P is None else bools(has_anchor_P, "has_anchor_P", shape[:1], device),
        logprob_PG=rows(logprob_PG, "logprob_PG"),
        advantages_PG=torch.zeros(shape, dtype=rewards.dtype, device=device),
        active_PG=valid.clone(),
        anchor_slot_P=none_P,
        positive_P=none_P.clone(),
        negative_P=none_P.clone(),
        redraw_P=none_P > 0,
        config=config or _DEFAULTS,
        generator=generator,
        anchor_logprob_P=prompts(anchor_logprob_P, "anchor_logprob_P"),
        baseline_P=None if baseline is None else finite_prompts(baseline, "baseline_P"),
        reference_logprob_PG=rows(reference_logprob_PG, "reference_logprob_PG"),
        anchor_reference_logprob_P=prompts(anchor_reference_logprob_P, "anchor_reference_logprob_P"),
        sids_PGL=sids,
        targets_PTL=targets,
        anchor_sids_PL=anchors,
        anchor_logprob_PL=levels(anchor_logprob_PL, "anchor_logprob_PL", P, L),
        entropy_PGL=None if entropy is None else finite(entropy, "entropy_PGL", valid),
    )


def append_row(state: GroupState) -> GroupState:
    """One more row at the end of every group, (P, G + 1): not valid and without content, room for an anchor."""
    wider: dict[str, Any] = {}
    for name in ("rewards_PG", "structural_PG", "valid_PG", "logprob_PG", "advantages_PG", "active_PG", "reference_logprob_PG"):
        rows_PG: Tensor | None = getattr(state, name)
        wider[name] = None if rows_PG is None else pad(rows_PG, (0, 1))
    for name, empty in (("advantages_PGL", 0), ("sids_PGL", -1), ("entropy_PGL", 0)):
        rows_PGL: Tensor | None = getattr(state, name)
        wider[name] = None if rows_PGL is None else pad(rows_PGL, (0, 0, 0, 1), value=empty)
    return replace(state, **wider)
