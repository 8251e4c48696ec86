"""Constructors of late 2025 and 2026 with one number a row: graded rewards, and likelihood beside the group."""

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.registry import register
from recast_sim.signal.steps.advantage import standardised
from recast_sim.signal.steps.beside_anchor import gated_by_difficulty, with_anchor_likelihood
from recast_sim.signal.steps.graded import confidence_weighted_misses, deepest_match, exponential_rewards
from recast_sim.signal.steps.repair import inject_last


@register("deepest_level", source="OpenReview zw0IMYPLQZ", all_zero="by level", needs=("sids_PGL", "targets_PTL"))
def deepest_level(state: GroupState) -> GroupState:
    """grpo on the share of levels that match a target from the first on."""
    return deepest_match(state)


@register("lens", source="arXiv 2510.08696", all_zero="centred", needs=("logprob_PG", "sids_PGL"))
def lens(state: GroupState) -> GroupState:
    """grpo, and all-zero groups by the confidence of their misses."""
    return confidence_weighted_misses(state)


@register("exp_reward_sft", source="arXiv 2603.10279", all_zero="positive", compares=False)
def exp_reward_sft(state: GroupState) -> GroupState:
    """Supervision on the sampled rows, weighed exponentially by their rewards: no group statistics at all."""
    return exponential_rewards(state)


@register("grpo_sr", source="arXiv 2604.14878", width="G + 1", all_zero="target", anchors="always", appends=True)
def grpo_sr(state: GroupState) -> GroupState:
    """grpo on the sampled rows, and supervision on the target beside them at nll_weight."""
    return with_anchor_likelihood(inject_last(standardised(state)), state.config.nll_weight)


@register(
    "ada_grpo",
    source="arXiv 2606.08480",
    width="G + 1",
    all_zero="target",
    anchors="always",
    needs=("logprob_PG", "anchor_logprob_P"),
    appends=True,
)
def ada_grpo(state: GroupState) -> GroupState:
    """Supervision on the target always, grpo on the sampled rows where the policy ranks the target low."""
    return with_anchor_likelihood(gated_by_difficulty(inject_last(standardised(state))), 1.0)
