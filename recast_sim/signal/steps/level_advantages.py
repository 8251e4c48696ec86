"""Step 2 of 3, by level: numbers for each level of a row's semantic ID (SID) that papers of 2025 and 2026 propose.

Axes: P prompts, G rollouts, L levels, level 0 is the first code.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.steps.advantage import has_variance, standardised
from recast_sim.signal.steps.anchor_weight import checked_logprob
from recast_sim.signal.steps.levels import by_level, target_matches
from recast_sim.signal.steps.pick import rows_mask


def step_aligned(state: GroupState) -> GroupState:
    """SAPO (arXiv 2605.17648): at each level grpo over the rows that share a target's codes so far, on the level's own match.

    With m_l = 1 where a row matches a target up to level l: (m_l - mean) / (std + std_eps) over the active rows that match
    up to level l - 1; 0 for the others, and where all of these agree. Sums to 0 over them. On one level it is grpo on hits.

    Raises:
        SignalError: no `sids_PGL` or `targets_PTL`.
    """
    match_PGL = target_matches(state)
    among_PGL = pad(match_PGL[..., :-1], (1, 0), value=1.0) * state.active_PG[..., None]
    n_P1L = among_PGL.sum(1, keepdim=True)
    mean_P1L = (match_PGL * among_PGL).sum(1, keepdim=True) / n_P1L.clamp(min=1)
    varied_P1L = (mean_P1L > 0) & (mean_P1L < 1)
    deviation_PGL = (match_PGL - mean_P1L) * among_PGL * varied_P1L
    variance_P1L = deviation_PGL.square().sum(1, keepdim=True) / (n_P1L - state.config.std_ddof).clamp(min=1)
    return by_level(state, deviation_PGL / (variance_P1L.sqrt() + state.config.std_eps))


def among_siblings(state: GroupState) -> GroupState:
    """Sibling advantages (V-STAR, arXiv 2602.10699, equations 15 to 18; its code): a node against its parent's other children.

    A node's value is the mean reward of the active rows through it. At each level a row gets (value - mean) /
    (std + sibling_eps), mean and population std over the *distinct* sampled children of the row's parent; 0 where there is
    one alone.

    Raises:
        SignalError: no `sids_PGL`.
    """
    sids_PGL = state.given("sids_PGL", "compares rollouts level by level; pass the codes of their semantic IDs")
    rewards_PG, active_PG = state.rewards_PG, state.active_PG
    together_PGG = (active_PG[:, :, None] & active_PG[:, None]).to(rewards_PG.dtype)
    levels = []
    for level in range(sids_PGL.shape[2]):
        code_PG = sids_PGL[..., level]
        same_PGG = together_PGG * (code_PG[:, :, None] == code_PG[:, None])
        rows_PG = same_PGG.sum(2).clamp(min=1)
        value_PG = (same_PGG * rewards_PG[:, None]).sum(2) / rows_PG
        # a child counts once however many rows go through it, so each of its rows counts 1 / rows
        share_PGG = together_PGG / rows_PG[:, None]
        children_PG = share_PGG.sum(2)
        mean_PG = (share_PGG * value_PG[:, None]).sum(2) / children_PG.clamp(min=1)
        gap_PGG = share_PGG * (value_PG[:, None] - mean_PG[:, :, None]).square()
        std_PG = (gap_PGG.sum(2) / children_PG.clamp(min=1)).sqrt()
        number_PG = (value_PG - mean_PG) / (std_PG + state.config.sibling_eps)
        levels.append(number_PG.masked_fill(std_PG < 1e-6 * value_PG.abs().amax(1, keepdim=True), 0.0) * active_PG)
        together_PGG = same_PGG
    return by_level(state, torch.stack(levels, 2))


def likelihood_weighted(state: GroupState) -> GroupState:
    """DFT (arXiv 2508.05629): the anchor's level l gets w_plus pi_l, the detached probability of its own code. Nothing else.

    Raises:
        SignalError: no `anchor_logprob_PL`.
    """
    return _on_anchor(state, state.config.w_plus * _anchor_probability(state))


def entropy_weighted(state: GroupState) -> GroupState:
    """RL-ZVP (arXiv 2509.21880, equations 5 and 6): grpo, and a group without variance moves by its entropy at each level.

    All hits: +zvp_alpha H_l. No hit: -zvp_alpha (max over the row's levels of H - H_l). Other groups have grpo's number on all
    levels.

    Raises:
        SignalError: no `entropy_PGL`.
    """
    H_PGL = state.given("entropy_PGL", "scales by the policy's entropy at each level of a rollout")
    alpha, flat = state.config.zvp_alpha, ~has_variance(state)[:, None, None] & state.active_PG[..., None]
    level = torch.where(state.hits_PG[..., None], alpha * H_PGL, alpha * (H_PGL - H_PGL.amax(2, keepdim=True)))
    return by_level(state, torch.where(flat, level, standardised(state).advantages_PG[..., None]))


def token_weighted_anchor(state: GroupState) -> GroupState:
    """CHORD-phi (arXiv 2508.11408; its code): (1 - mu) times the rows' numbers, mu n p_l (1 - p_l) on the anchor's level l.

    n is the number of the other active rows, so that both losses are means; p_l is the detached probability of the anchor's
    code.

    Raises:
        SignalError: no `anchor_logprob_PL`.
    """
    mu, p_PL = state.config.chord_mu, _anchor_probability(state)
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])
    n_P11 = (state.active_PG & ~anchor).sum(1)[:, None, None].to(p_PL.dtype)
    phi_PGL = mu * n_P11 * (p_PL * (1 - p_PL))[:, None]
    return by_level(state, torch.where(anchor[..., None], phi_PGL, (1 - mu) * state.advantages_PG[..., None]))


def _on_anchor(state: GroupState, numbers_PL: Tensor) -> GroupState:
    anchor = rows_mask(state.anchor_slot_P, state.rewards_PG.shape[1])[..., None]
    placed = by_level(state, torch.where(anchor, numbers_PL[:, None], 0.0))
    return replace(placed, positive_P=state.anchor_slot_P)


def _anchor_probability(state: GroupState) -> Tensor:
    """Probability of each code of the anchor, (P, L), 0 where a group holds no anchor."""
    logprob_PL = state.given("anchor_logprob_PL", "weighs the anchor's levels by their probability")
    probability_PL = checked_logprob(state, logprob_PL, "anchor_logprob_PL").exp()
    return probability_PL.masked_fill((state.anchor_slot_P < 0)[:, None], 0.0)
