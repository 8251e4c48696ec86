"""The constructors that ship with recast: each a one-line composition of repair, advantage and support."""

from recast_sim.signal.advantage import (
    anchor_against_hardest,
    anchor_alone,
    boundary_contrast,
    centred,
    leave_one_out,
    mean_scaled,
    standardised,
)
from recast_sim.signal.registry import register
from recast_sim.signal.repair import inject_last, inject_target, repair_all_zero
from recast_sim.signal.state import GroupState
from recast_sim.signal.support import keep_max_variance, keep_nonzero, keep_varied_groups


@register("grpo", source="arXiv 2402.03300")
def grpo(state: GroupState) -> GroupState:
    """Group-standardised rewards on all rows."""
    return standardised(state)


@register("dr_grpo", source="arXiv 2503.20783")
def dr_grpo(state: GroupState) -> GroupState:
    """Group-centred rewards, no division by the standard deviation."""
    return centred(state)


@register("rloo", source="arXiv 2402.14740")
def rloo(state: GroupState) -> GroupState:
    """Leave-one-out baseline: an unbiased policy gradient."""
    return leave_one_out(state)


@register("dapo", source="arXiv 2503.14476", width="G of kept groups", all_zero="redrawn", redraws=True)
def dapo(state: GroupState) -> GroupState:
    """GRPO on groups with variance; the others are dropped and redrawn, and the redraw is paid for."""
    return standardised(keep_varied_groups(state))


@register("max_rl", source="arXiv 2602.02710")
def max_rl(state: GroupState) -> GroupState:
    """Centred rewards over the group's mean reward."""
    return mean_scaled(state)


@register("pods", source="arXiv 2504.13818", width="pods_width")
def pods(state: GroupState) -> GroupState:
    """GRPO inside the subset of rows with the largest reward variance."""
    return standardised(keep_max_variance(state))


@register("add_gt", source="MiniOneRec", all_zero="target injected", anchors="always")
def add_gt(state: GroupState) -> GroupState:
    """GRPO after the last row of every group became the target."""
    return standardised(inject_last(state))


@register("repair_only", source="arXiv 2604.22169", all_zero="repaired", anchors="all_zero", structural=True)
def repair_only(state: GroupState) -> GroupState:
    """GRPO on repaired groups: the first half of ReCast alone."""
    return standardised(repair_all_zero(state))


@register("boundary_only", source="arXiv 2604.22169", width="2", structural=True)
def boundary_only(state: GroupState) -> GroupState:
    """The boundary pair on groups with a natural hit: the second half of ReCast alone."""
    return keep_nonzero(boundary_contrast(state))


@register("recast", source="arXiv 2604.22169", width="2", all_zero="repaired", anchors="all_zero", structural=True)
def recast(state: GroupState) -> GroupState:
    """Repair, then contrast at the boundary, then keep only the pair."""
    return keep_nonzero(boundary_contrast(repair_all_zero(state)))


@register("sft", source="control", width="1", all_zero="target", anchors="always", rollouts=False)
def sft(state: GroupState) -> GroupState:
    """Plain supervision on the target; the sampled rows are not used."""
    return keep_nonzero(anchor_alone(inject_target(state)))


@register("sft_hard_negative", source="control", width="2", all_zero="target", anchors="always", structural=True)
def sft_hard_negative(state: GroupState) -> GroupState:
    """Supervision on the target minus the hardest on-policy miss.

    With one target a prompt this *is* recast on every group that has a miss.
    """
    return keep_nonzero(anchor_against_hardest(inject_target(state)))
