"""The batch of groups that each step takes and returns: checked once here, trusted inside.

Axes: P prompts (groups), G rollouts of a group.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.config import SignalConfig, SignalError

_ROWS = (
    "rewards_PG",
    "structural_PG",
    "valid_PG",
    "logprob_PG",
    "advantages_PG",
    "active_PG",
    "reference_logprob_PG",
)


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

    @property
    def hits_PG(self) -> Tensor:
        """Bool (P, G): valid rows whose reward is above `config.hit_above`."""
        return self.valid_PG & (self.rewards_PG > self.config.hit_above)

    @property
    def misses_PG(self) -> Tensor:
        """Bool (P, G): valid rows that are not hits."""
        return self.valid_PG & ~(self.rewards_PG > self.config.hit_above)

    def scores_PG(self) -> Tensor:
        """Structural scores (P, G); raises SignalError where the caller gave none."""
        if self.structural_PG is None:
            raise SignalError("structural_PG: missing, and this constructor orders rollouts by it; pass scores in [0, 1]")
        return self.structural_PG

    def with_(self, **changes: Any) -> "GroupState":
        return replace(self, **changes)


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
    everything = torch.ones(shape, dtype=torch.bool, device=device)
    valid = everything if valid_PG is None else _bool(valid_PG, "valid_PG", shape, device)
    if not bool((filled := valid.any(1)).all()):
        raise SignalError(
            f"valid_PG: prompt {int((~filled).nonzero()[0])} has no valid rollout; drop the prompt or keep one row"
        )
    none_P = torch.full(shape[:1], -1, dtype=torch.int64, device=device)
    no_P = torch.zeros(shape[:1], dtype=torch.bool, device=device)
    rewards = _finite(rewards, "rewards_PG", valid)
    return GroupState(
        rewards_PG=rewards,
        structural_PG=None if structural_PG is None else _score(structural_PG, rewards, valid),
        valid_PG=valid,
        has_anchor_P=no_P if has_anchor_P is None else _bool(has_anchor_P, "has_anchor_P", shape[:1], device),
        logprob_PG=_rows(logprob_PG, "logprob_PG", rewards, valid),
        advantages_PG=torch.zeros_like(rewards),
        active_PG=valid,
        anchor_slot_P=none_P,
        positive_P=none_P,
        negative_P=none_P,
        redraw_P=no_P,
        config=config or SignalConfig(),
        generator=generator,
        anchor_logprob_P=_prompts(anchor_logprob_P, "anchor_logprob_P", rewards),
        baseline_P=_baseline(baseline_P, rewards),
        reference_logprob_PG=_rows(reference_logprob_PG, "reference_logprob_PG", rewards, valid),
        anchor_reference_logprob_P=_prompts(anchor_reference_logprob_P, "anchor_reference_logprob_P", rewards),
    )


def append_row(state: GroupState) -> GroupState:
    """One more row at the end of every group, (P, G + 1): not valid and without content, room for an anchor."""

    def padded(rows_PG: Tensor | None) -> Any:
        return None if rows_PG is None else torch.nn.functional.pad(rows_PG, (0, 1))

    return state.with_(**{name: padded(getattr(state, name)) for name in _ROWS})


def pick(state: GroupState, score_PG: Tensor, candidates_PG: Tensor) -> Tensor:
    """Row of the best-scored candidate of each group by the config's tie rule: int64 (P,), -1 where there is none."""
    masked = score_PG.masked_fill(~candidates_PG, -torch.inf)
    if state.config.tie_rule != "first":
        tied = candidates_PG & (masked == masked.amax(1, keepdim=True))
        masked = _tie_key(state).masked_fill(~tied, -torch.inf)
    # torch.argmax returns the first maximum, which is the tie rule "first"
    return torch.where(candidates_PG.any(1), masked.argmax(1), -1)


def pick_best(state: GroupState, score_PG: Tensor, candidates_PG: Tensor, count: int) -> Tensor:
    """Bool (P, G): the `count` best-scored candidates of each group, or all where there are fewer; ties as in `pick`."""
    key = torch.zeros_like(score_PG) if state.config.tie_rule == "first" else _tie_key(state)
    order = key.argsort(dim=1, descending=True, stable=True)
    masked = score_PG.masked_fill(~candidates_PG, -torch.inf).gather(1, order)
    order = order.gather(1, masked.argsort(dim=1, descending=True, stable=True))
    return candidates_PG & (order.argsort(dim=1) < count)


def rows_mask(index_P: Tensor, width: int) -> Tensor:
    """Bool (P, width): true at each prompt's row `index_P`, nowhere where it is -1."""
    return torch.arange(width, device=index_P.device) == index_P[:, None]


def _tie_key(state: GroupState) -> Tensor:
    if state.config.tie_rule == "random":
        if state.generator is None:
            raise SignalError("generator: missing; tie_rule 'random' needs an explicit torch.Generator")
        return torch.rand(state.rewards_PG.shape, generator=state.generator, device=state.rewards_PG.device)
    if state.logprob_PG is None:
        raise SignalError("logprob_PG: missing; tie_rule 'highest_logprob' needs the rollouts' log-probabilities")
    return state.logprob_PG


def _float(value: Any, name: str, like: Tensor) -> Tensor:
    tensor = as_tensor(value, name, like.device).to(like.dtype)
    check_shape(tensor, name, like.shape)
    return tensor


def _rows(value: Any, name: str, rewards: Tensor, valid: Tensor) -> Tensor | None:
    return None if value is None else _finite(_float(value, name, rewards), name, valid)


def _prompts(value: Any, name: str, rewards: Tensor) -> Tensor | None:
    return None if value is None else _float(value, name, rewards[:, 0])


def _baseline(value: Any, rewards: Tensor) -> Tensor | None:
    baseline = _prompts(value, "baseline_P", rewards)
    if baseline is not None and bool((bad := ~baseline.isfinite()).any()):
        p = int(bad.nonzero()[0])
        raise SignalError(f"baseline_P: prompt {p} is {baseline[p].item()}; values must be finite")
    return baseline


def _bool(value: Any, name: str, shape: torch.Size, device: torch.device) -> Tensor:
    tensor = as_tensor(value, name, device)
    if tensor.dtype != torch.bool:
        raise SignalError(f"{name}: dtype {tensor.dtype} must be bool")
    check_shape(tensor, name, shape)
    return tensor


def as_tensor(value: Any, name: str, device: torch.device | None = None) -> Tensor:
    """`value` as a tensor. Raises SignalError naming the argument where it is none (ragged lists, text, None)."""
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SignalError(f"{name}: {type(value).__name__} is no table of numbers: {error}") from error


def check_shape(tensor: Tensor, name: str, shape: torch.Size) -> None:
    """Raise SignalError naming the argument where the shape is another."""
    if tensor.shape != shape:
        raise SignalError(f"{name}: shape {tuple(tensor.shape)} does not fit; expected {tuple(shape)}")


def _finite(tensor: Tensor, name: str, valid: Tensor) -> Tensor:
    bad = valid & ~torch.isfinite(tensor)
    if bool(bad.any()):
        p, g = bad.nonzero()[0].tolist()
        raise SignalError(
            f"{name}: prompt {p}, rollout {g} is {tensor[p, g].item()}; values must be finite: "
            "mend their source or mark the row in valid_PG"
        )
    return tensor.masked_fill(~valid, 0.0)


def _score(value: Any, rewards: Tensor, valid: Tensor) -> Tensor:
    scores = _finite(_float(value, "structural_PG", rewards), "structural_PG", valid)
    bad = (scores < 0) | (scores > 1)
    if bool(bad.any()):
        p, g = bad.nonzero()[0].tolist()
        raise SignalError(f"structural_PG: prompt {p}, rollout {g} is {scores[p, g].item():g}; scores must lie in [0, 1]")
    return scores
