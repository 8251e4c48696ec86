"""Constructors with credit by level: numbers for each code of a rollout's semantic ID, and masks over those of others."""

from recast_sim.signal.constructors.papers import recast
from recast_sim.signal.group_state import GroupState
from recast_sim.signal.registry import register
from recast_sim.signal.steps.advantage import standardised
from recast_sim.signal.steps.level_advantages import (
    among_siblings,
    entropy_weighted,
    likelihood_weighted,
    step_aligned,
    token_weighted_anchor,
)
from recast_sim.signal.steps.levels import by_level, mask_shared_prefix, only_diverging_level
from recast_sim.signal.steps.repair import inject_last, inject_target
from recast_sim.signal.steps.support import keep_nonzero

_CODES = ("sids_PGL", "targets_PTL")


@register("sapo", source="arXiv 2605.17648", all_zero="by level", needs=_CODES, level_wise=True)
def sapo(state: GroupState) -> GroupState:
    """A group-relative advantage a level, among the rows that share a target's codes so far."""
    return step_aligned(state)


@register("sibling", source="arXiv 2602.10699", needs=("sids_PGL",), level_wise=True)
def sibling(state: GroupState) -> GroupState:
    """A node's mean reward against those of its parent's other sampled children, at each level."""
    return among_siblings(state)


@register("sibling_grpo", source="arXiv 2602.10699", needs=("sids_PGL",), level_wise=True)
def sibling_grpo(state: GroupState) -> GroupState:
    """grpo plus sibling_weight times the advantages among siblings."""
    siblings, weight = among_siblings(state).advantages_PGL, state.config.sibling_weight
    assert siblings is not None  # by_level sets it
    return by_level(state, standardised(state).advantages_PG[..., None] + weight * siblings)


@register(
    "recast_masked",
    source="arXiv 2602.23964",
    width="2",
    all_zero="repaired",
    anchors="all_zero",
    structural=True,
    needs=_CODES,
    level_wise=True,
)
def recast_masked(state: GroupState) -> GroupState:
    """recast whose negative is not pushed down on the codes that it shares with the positive."""
    return keep_nonzero(mask_shared_prefix(recast(state)))


@register(
    "recast_diverging",
    source="recast",
    width="2",
    all_zero="repaired",
    anchors="all_zero",
    structural=True,
    needs=_CODES,
    level_wise=True,
)
def recast_diverging(state: GroupState) -> GroupState:
    """recast whose negative is pushed down on the one level where it leaves the positive."""
    return keep_nonzero(only_diverging_level(recast(state)))


@register(
    "dft",
    source="arXiv 2508.05629",
    width="1",
    all_zero="target",
    anchors="always",
    rollouts=False,
    needs=("anchor_logprob_PL",),
    level_wise=True,
)
def dft(state: GroupState) -> GroupState:
    """Supervision on the target, each code weighed by its own probability."""
    return keep_nonzero(likelihood_weighted(inject_target(state)))


@register("rl_zvp", source="arXiv 2509.21880", all_zero="negative", needs=("entropy_PGL",), level_wise=True)
def rl_zvp(state: GroupState) -> GroupState:
    """grpo, and groups without variance by the policy's entropy at each level."""
    return entropy_weighted(state)


@register(
    "chord",
    source="arXiv 2508.11408",
    width="G + 1",
    all_zero="target",
    anchors="always",
    needs=("anchor_logprob_PL",),
    appends=True,
    level_wise=True,
)
def chord(state: GroupState) -> GroupState:
    """grpo on the sampled rows, and token-weighted supervision on the target beside them."""
    return token_weighted_anchor(inject_last(standardised(state)))
