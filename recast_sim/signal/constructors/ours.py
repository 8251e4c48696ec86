"""Constructors of our own (source "recast"), which the laboratory compares with those of the papers."""

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.registry import register
from recast_sim.signal.steps.advantage import leave_one_out, signed, standardised
from recast_sim.signal.steps.anchor_weight import mixed, tempered
from recast_sim.signal.steps.beside_anchor import supervision_list_and_hits, with_list_of_misses
from recast_sim.signal.steps.pair import anchor_alone, boundary_contrast, rescue_with_anchor, soften_near_misses
from recast_sim.signal.steps.repair import inject_last, inject_target, repair_all_zero
from recast_sim.signal.steps.support import keep_nonzero


@register(
    "tempered_anchor",
    source="recast",
    width="1",
    all_zero="target",
    anchors="always",
    rollouts=False,
    needs=("anchor_logprob_P",),
)
def tempered_anchor(state: GroupState) -> GroupState:
    """Supervision on the target times pi(target)^anchor_power.

    With one target and power 1 its gradient p grad log p = grad p *is* that of sampled Pass@1, without variance and without
    a rollout (the Rao-Blackwellised policy gradient); with power 0 it is sft.
    """
    return keep_nonzero(tempered(anchor_alone(inject_target(state))))


@register(
    "mixture_anchor",
    source="recast",
    width="1",
    all_zero="target",
    anchors="always",
    rollouts=False,
    needs=("anchor_logprob_P",),
)
def mixture_anchor(state: GroupState) -> GroupState:
    """Supervision on the target by log(pi + mixture_gamma): the likelihood of a channel that may have replaced the target."""
    return keep_nonzero(mixed(anchor_alone(inject_target(state))))


@register("hits_light_anchor", source="recast", all_zero="target", anchors="all_zero", compares=False)
def hits_light_anchor(state: GroupState) -> GroupState:
    """Every hit up by its reward, no miss down, and the anchor alone at w_anchor on groups without a hit."""
    return keep_nonzero(rescue_with_anchor(signed(state, 1.0, 0.0)))


@register(
    "beam_listwise",
    source="recast",
    width="G + 1",
    all_zero="repaired",
    anchors="always",
    needs=("logprob_PG", "anchor_logprob_P"),
    appends=True,
)
def beam_listwise(state: GroupState) -> GroupState:
    """Supervision on the target, and a softmax over the target and the group's misses."""
    return keep_nonzero(with_list_of_misses(inject_last(state)))


@register(
    "composite",
    source="recast",
    width="G + 1",
    all_zero="repaired",
    anchors="always",
    needs=("logprob_PG", "anchor_logprob_P"),
    appends=True,
)
def composite(state: GroupState) -> GroupState:
    """mixture_anchor, beam_listwise and hits_light_anchor in one, with the numbers at which it is plain supervision."""
    return keep_nonzero(supervision_list_and_hits(inject_last(state)))


@register("hybrid", source="recast", width="2", all_zero="target", anchors="all_zero", structural=True)
def hybrid(state: GroupState) -> GroupState:
    """The boundary pair on groups with a natural hit, the anchor alone at w_anchor on the others."""
    return keep_nonzero(rescue_with_anchor(boundary_contrast(state)))


@register("grpo_anchor", source="recast", all_zero="target", anchors="all_zero")
def grpo_anchor(state: GroupState) -> GroupState:
    """grpo, and the anchor alone at w_anchor on groups without a hit."""
    return rescue_with_anchor(standardised(state))


@register("rloo_anchor", source="recast", all_zero="target", anchors="all_zero")
def rloo_anchor(state: GroupState) -> GroupState:
    """rloo, and the anchor alone at w_anchor on groups without a hit."""
    return rescue_with_anchor(leave_one_out(state))


@register("near_miss", source="recast", width="2", all_zero="repaired", anchors="all_zero", structural=True)
def near_miss(state: GroupState) -> GroupState:
    """recast with the negative's weight times 1 - its structural score."""
    return keep_nonzero(soften_near_misses(boundary_contrast(repair_all_zero(state))))
