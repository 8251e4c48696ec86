"""The factor on an anchor's row, which no policy sampled. It is a weight: detached, never differentiated.

A constructor that calls one of the two steps sets the factor itself; for every other one `anchor_weight` applies the
config's `anchor_weighting` rule at the end.
"""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError

_ROUNDING = 1e-4  # a log-probability may exceed 0 by this much


def shaped_anchor(state: GroupState) -> GroupState:
    """LUFFY's policy shaping (arXiv 2504.14945): the anchor's factor is the gradient of pi / (pi + luffy_gamma)."""
    return replace(state, anchor_weight_P=_shaped(state))


def tempered(state: GroupState) -> GroupState:
    """The anchor's factor is pi(anchor)^anchor_power: the importance weight at 1, plain supervision at 0."""
    # a log-probability of -inf times a power of 0 is no number, the lowest finite one is
    lowest = torch.finfo(state.rewards_PG.dtype).min
    return replace(state, anchor_weight_P=(state.config.anchor_power * anchor_logprob(state).clamp(min=lowest)).exp())


def mixed(state: GroupState) -> GroupState:
    """The anchor's factor is pi / (pi + mixture_gamma), so that its gradient is that of log(pi + mixture_gamma).

    That is the likelihood of a target that was replaced by one of Y items with probability eps, at mixture_gamma
    eps / ((1 - eps) Y): a target that the policy finds impossible is taken for a wrong label.
    """
    return replace(state, anchor_weight_P=mixture_factor(state))


def mixture_factor(state: GroupState) -> Tensor:
    """pi / (pi + mixture_gamma) of each prompt's anchor, (P,); 1 at mixture_gamma 0, whatever pi is, and never quite 0."""
    logprob_P = anchor_logprob(state)
    log_gamma = torch.tensor(state.config.mixture_gamma, dtype=logprob_P.dtype, device=logprob_P.device).log()
    limits = torch.finfo(logprob_P.dtype)
    return (logprob_P.clamp(min=limits.min) - log_gamma).sigmoid().clamp(min=limits.tiny)


def anchor_weight(state: GroupState, before: GroupState) -> Tensor | None:
    """The factor of each prompt's anchor, (P,): the constructor's own, else by `config.anchor_weighting`; None where all are 1.

    `before` holds the groups as sampled: "annealed" reads the share of them with a natural hit.
    """
    rule = state.config.anchor_weighting
    if state.anchor_weight_P is not None or rule == "ratio_one":
        return state.anchor_weight_P
    if rule == "annealed":
        hit_P = before.any_hit_P().to(state.rewards_PG.dtype)
        return (1 - hit_P.mean()).expand(hit_P.shape)
    if state.anchor_logprob_P is None:
        raise SignalError(f"anchor_logprob_P: missing; anchor_weighting {rule!r} needs log pi(anchor)")
    return anchor_logprob(state).exp().clamp(min=state.config.anchor_floor) if rule == "clipped" else _shaped(state)


def anchor_logprob(state: GroupState) -> Tensor:
    """log pi of each prompt's anchor, (P,); 0 where a group holds no anchor.

    Raises:
        SignalError: missing, NaN or above 0 for a prompt that got an anchor.
    """
    if state.anchor_logprob_P is None:
        raise SignalError("anchor_logprob_P: missing; this constructor weighs anchors by log pi(anchor)")
    return checked_logprob(state, state.anchor_logprob_P, "anchor_logprob_P")


def checked_logprob(state: GroupState, logprob: Tensor, name: str) -> Tensor:
    """`logprob`, (P,) or (P, L), where the group holds an anchor, at most 0; elsewhere 0.

    Raises:
        SignalError: NaN or above 0 for a prompt that holds an anchor, naming the first.
    """
    placed = state.anchor_slot_P >= 0
    placed = placed if logprob.ndim == 1 else placed[:, None]
    if bool((bad := placed & ~(logprob <= _ROUNDING)).any()):
        p = int(bad.nonzero()[0, 0])
        raise SignalError(f"{name}: prompt {p} is {logprob[p].tolist()}; a log-probability is 0 or less")
    return logprob.masked_fill(~placed, 0.0).clamp(max=0.0).detach()


def _shaped(state: GroupState) -> Tensor:
    probability, gamma = anchor_logprob(state).exp(), state.config.luffy_gamma
    return gamma * probability / (probability + gamma).square()  # d/dlog(pi) of pi / (pi + gamma)
