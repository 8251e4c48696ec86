"""Step 2 of 3, over the batch: numbers that depend on the other groups, so on what a batch is made of.

N stands for the active rows of the whole batch.
"""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.advantage import centred_rewards

_NO_SPREAD = 1e-12  # means that differ by rounding alone show no spread to fit


def whitened(state: GroupState) -> GroupState:
    """REINFORCE++ (arXiv 2501.03262; verl `masked_whiten`): (r - mean) / sqrt(var + whiten_eps) over the batch's N rows.

    The variance has N - 1 in its denominator. A batch of equal rewards gets 0. verl whitens tokens, so long rows count
    more there; here every row counts once.
    """
    deviation, variance = _moments(state, state.rewards_PG)
    return replace(state, advantages_PG=deviation * (variance + state.config.whiten_eps).rsqrt())


def whitened_centred(state: GroupState) -> GroupState:
    """REINFORCE++-baseline (verl): r - group mean, divided by sqrt(var + whiten_eps) of these numbers over the batch.

    Their mean over the batch is 0 already. A group of one row gets 0 (verl: its raw reward).
    """
    deviation = centred_rewards(state)[0]
    _, variance = _moments(state, deviation)
    return replace(state, advantages_PG=deviation * (variance + state.config.whiten_eps).rsqrt())


def rescaled_by_rewarded(state: GroupState) -> GroupState:
    """GPG (arXiv 2504.02546; verl): (N / rows with a reward other than 0) (r - m) / gpg_norm.

    N and the count run over rows, not groups, as in verl. A group of one row gets 0 (verl: its scaled raw reward).
    """
    rewarded = ((state.rewards_PG != 0) & state.active_PG).sum().clamp(min=1)
    rows = state.active_PG.sum().to(state.rewards_PG.dtype)  # a quotient of whole numbers would be float32
    scale = rows / rewarded / state.config.gpg_norm
    return replace(state, advantages_PG=centred_rewards(state)[0] * scale)


def beta_normalised(state: GroupState) -> GroupState:
    """BNPO (arXiv 2506.02864; its code): (r - m) / Beta(m; 1 + a/3, 1 + b/3), with Beta(a, b) fitted to the groups' means.

    The fit is by moments over the batch (P - 1 in the variance), both parameters at least 1, the factor at most
    `bnpo_max_weight`. Where the means of all groups agree nothing can be fitted, and the density counts as 1.

    Raises:
        SignalError: a mean reward outside [0, 1], where a Beta density has no meaning.
    """
    deviation, mean, _ = centred_rewards(state)
    if bool((bad := (mean < 0) | (mean > 1)).any()):
        p = int(bad.nonzero()[0, 0])
        raise SignalError(f"rewards_PG: prompt {p} has a mean reward of {mean[p].item():g}; bnpo needs means in [0, 1]")
    density = _beta_density(mean)
    return replace(state, advantages_PG=deviation * (1 / density).clamp(max=state.config.bnpo_max_weight))


def tracked_baseline(state: GroupState) -> GroupState:
    """SPO (arXiv 2509.13232; verl recipe): r - baseline_P, then (x - mean) / (std + whiten_eps) over the batch's N rows.

    The caller keeps the baseline (the paper's tracker: the mean of a Beta whose counts are discounted at each visit), and
    must take it from before this batch. The std has N - 1 in its denominator.

    Raises:
        SignalError: no baseline.
    """
    if state.baseline_P is None:
        raise SignalError("baseline_P: missing; this constructor subtracts the running mean reward of each prompt")
    deviation, variance = _moments(state, state.rewards_PG - state.baseline_P[:, None])
    return replace(state, advantages_PG=deviation / (variance.sqrt() + state.config.whiten_eps))


def _moments(state: GroupState, values_PG: Tensor) -> tuple[Tensor, Tensor]:
    """values - mean (0 outside the active rows) and the variance over the batch. Exactly 0 where all values are equal."""
    active, n = state.active_PG, state.active_PG.sum()
    high = values_PG.masked_fill(~active, -torch.inf).max()
    low = values_PG.masked_fill(~active, torch.inf).min()
    mean = values_PG.masked_fill(~active, 0.0).sum() / n
    deviation = torch.where(active & (high > low), values_PG - mean, 0.0)
    return deviation, deviation.square().sum() / (n - 1).clamp(min=1)


def _beta_density(mean_P1: Tensor) -> Tensor:
    """Density of the fitted Beta at each group's mean, in double precision: its parameters can be large."""
    mean = mean_P1.double()
    center = mean.mean()
    spread, widest = mean.var(correction=1) if len(mean) > 1 else mean.new_zeros(()), center * (1 - center)
    if bool(spread <= _NO_SPREAD * widest):
        return torch.ones_like(mean_P1)
    a, b = (1 + (widest / spread - 1) * share / 3 for share in (center, 1 - center))
    return torch.distributions.Beta(a.clamp(min=1), b.clamp(min=1)).log_prob(mean).exp().to(mean_P1.dtype)
