"""Step 2 of 3: numbers for the rows. Statistics run over a group's active rows; every other row gets 0.

With K hits among n active rows of a group, m = K / n is the mean reward in the binary case.
"""

from dataclasses import replace

import torch
from torch import Tensor

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError
from recast_sim.signal.steps.pick import rows_mask


def centred(state: GroupState) -> GroupState:
    """Dr. GRPO (arXiv 2503.20783): r - m."""
    return replace(state, advantages_PG=centred_rewards(state)[0])


def standardised(state: GroupState) -> GroupState:
    """GRPO (arXiv 2402.03300): (r - m) / (std + eps), `std_ddof` and `std_eps` of the config.

    A group with one active row gets 0, or its raw reward where `singleton` is "raw" (verl).
    """
    deviation, _, n = centred_rewards(state)
    variance = deviation.square().sum(1, keepdim=True) / (n - state.config.std_ddof).clamp(min=1)
    advantages = deviation / (variance.sqrt() + state.config.std_eps)
    if state.config.singleton == "raw":
        advantages = torch.where((n == 1) & state.active_PG, state.rewards_PG, advantages)
    return replace(state, advantages_PG=advantages)


def leave_one_out(state: GroupState) -> GroupState:
    """RLOO (arXiv 2402.14740): r minus the mean of the other rows, which is n / (n - 1) (r - m); 0 where n = 1."""
    deviation, _, n = centred_rewards(state)
    return replace(state, advantages_PG=deviation * (n / (n - 1).clamp(min=1)))


def mean_scaled(state: GroupState) -> GroupState:
    """MaxRL (arXiv 2602.02710): (r - m) / (m + eps); 0 for a group without reward.

    Raises:
        SignalError: a reward below 0, for which dividing by the mean has no meaning.
    """
    deviation, mean, _ = centred_rewards(state)
    return replace(state, advantages_PG=deviation / _mean_divisor(state, mean))


def over_the_mean(state: GroupState) -> GroupState:
    """A row's share of its group's reward, times the number of rows: r / (m + eps); 0 for a group without reward.

    Where rewards are probabilities p(target | thought), these are the weights of grad log p(target | thought) in the gradient
    of the log of the group's mean, the multi-sample bound of JEPO (arXiv 2503.19618).

    Raises:
        SignalError: a reward below 0.
    """
    _, mean, _ = centred_rewards(state)
    rewards = state.rewards_PG.masked_fill(~state.active_PG, 0.0)
    return replace(state, advantages_PG=rewards / _mean_divisor(state, mean))


def virtual_maximum(state: GroupState) -> GroupState:
    """NGRPO (arXiv 2509.18851; its code): grpo with mean and std over the group's rewards and one more, `virtual_reward`.

    An all-zero group of n rows is pushed down by 1 / sqrt(n + 1) each (ddof 1), an all-hit group gets 0. Its asymmetric clip
    belongs to the objective.
    """
    virtual, config = state.config.virtual_reward, state.config
    active, rewards = state.active_PG, state.rewards_PG
    n = active.sum(1, keepdim=True).to(rewards.dtype)
    mean = (rewards.masked_fill(~active, 0.0).sum(1, keepdim=True) + virtual) / (n + 1)
    varied = ((rewards != virtual) & active).any(1, keepdim=True)
    deviation = torch.where(active & varied, rewards - mean, 0.0)
    total = deviation.square().sum(1, keepdim=True) + (virtual - mean).square()
    std = (total / (n + 1 - config.std_ddof).clamp(min=1)).sqrt()
    return replace(state, advantages_PG=deviation / (std + config.std_eps))


def at_least_one_of_k(state: GroupState) -> GroupState:
    """Pass@k training (arXiv 2508.10751, analytic derivation): each row's mean advantage over the `pass_k`-subsets with it.

    A subset's reward is 1 if it holds a hit. Over all subsets its mean is R = 1 - C(M, k) / C(n, k) for M misses, its std
    s = sqrt(R (1 - R)) (+ std_eps). A hit gets (1 - R) / s, a miss (1 - R - C(M - 1, k - 1) / C(n - 1, k - 1)) / s. Sums to 0.

    Raises:
        SignalError: a group has fewer valid rows than `pass_k`.
    """
    k, hits, misses = state.config.pass_k, state.hits_PG, state.misses_PG
    n, M = (mask.sum(1, keepdim=True).to(state.rewards_PG.dtype) for mask in (state.valid_PG, misses))
    if bool((small := n < k).any()):
        p = int(small.nonzero()[0, 0])
        raise SignalError(f"pass_k: {k} is more than the {int(n[p])} valid rollouts of prompt {p}")
    fail = _subset_share(M, n, k)
    std = (fail * (1 - fail)).sqrt() + state.config.std_eps
    missed = fail - _subset_share(M - 1, n - 1, k - 1)
    varied = (M > 0) & (n > M)
    advantages = torch.where(hits, fail, torch.where(misses, missed, 0.0)) / std
    return replace(state, advantages_PG=torch.where(varied, advantages, 0.0))


def signed(state: GroupState, positive: float, negative: float) -> GroupState:
    """Decomposed REINFORCE (arXiv 2506.01347): `positive` times the reward on hits, -`negative` on misses, no baseline."""
    numbers = torch.where(state.hits_PG, positive * state.rewards_PG, -negative)
    return replace(state, advantages_PG=numbers.masked_fill(~state.valid_PG, 0.0))


def smoothed_anchor(state: GroupState) -> GroupState:
    """ViSurf (arXiv 2510.10606): grpo, where an anchor beside a sampled hit counts with the mean reward of the sampled rows.

    So its own advantage is 0 there: the anchor fades out as the policy learns.
    """
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    sampled = state.active_PG & ~anchor
    mean = state.rewards_PG.masked_fill(~sampled, 0.0).sum(1, keepdim=True) / sampled.sum(1, keepdim=True).clamp(min=1)
    low = state.rewards_PG.masked_fill(~sampled, torch.inf).amin(1, keepdim=True)
    mean = torch.minimum(torch.maximum(mean, low), state.rewards_PG.masked_fill(~sampled, -torch.inf).amax(1, keepdim=True))
    # between the ends, so that the mean of equal rewards is their value: a rounded one would have a variance
    faded = anchor & (state.hits_PG & sampled).any(1, keepdim=True)
    smoothed = replace(state, rewards_PG=torch.where(faded, mean, state.rewards_PG))
    return replace(state, advantages_PG=standardised(smoothed).advantages_PG.masked_fill(faded, 0.0))


def centred_rewards(state: GroupState) -> tuple[Tensor, Tensor, Tensor]:
    """r - m over the active rows, m, and n. Exactly 0 where all rewards of a group are equal, whatever the rounding."""
    active, rewards = state.active_PG, state.rewards_PG
    n = active.sum(1, keepdim=True).to(rewards.dtype)
    mean = rewards.masked_fill(~active, 0.0).sum(1, keepdim=True) / n.clamp(min=1)
    varied = has_variance(state)[:, None]
    return torch.where(active & varied, rewards - mean, 0.0), mean, n


def _mean_divisor(state: GroupState, mean: Tensor) -> Tensor:
    """m + mean_eps of each group, inf where m is 0. Raises SignalError for a reward below 0."""
    if bool((bad := (state.rewards_PG < 0) & state.active_PG).any()):
        p = int(bad.any(1).nonzero()[0])
        raise SignalError(f"rewards_PG: prompt {p} has a reward below 0; a division by the group's mean needs 0 or more")
    return torch.where(mean == 0, torch.inf, mean + state.config.mean_eps)


def _subset_share(M: Tensor, n: Tensor, k: int) -> Tensor:
    """C(M, k) / C(n, k): the share of k-subsets that hold misses alone."""
    share = torch.ones_like(M)
    for i in range(k):
        share = share * ((M - i).clamp(min=0) / (n - i).clamp(min=1))
    return share


def has_variance(state: GroupState) -> Tensor:
    """Bool (P,): the active rows of the group have at least two different rewards."""
    high = state.rewards_PG.masked_fill(~state.active_PG, -torch.inf).amax(1)
    low = state.rewards_PG.masked_fill(~state.active_PG, torch.inf).amin(1)
    return high > low
