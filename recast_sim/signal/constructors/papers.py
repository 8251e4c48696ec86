"""The constructors of the papers: each a one-line composition of repair, advantage and support."""

from recast_sim.signal.group_state import GroupState
from recast_sim.signal.registry import register
from recast_sim.signal.steps.advantage import (
    at_least_one_of_k,
    centred,
    leave_one_out,
    mean_scaled,
    over_the_mean,
    signed,
    smoothed_anchor,
    standardised,
    virtual_maximum,
)
from recast_sim.signal.steps.anchor_weight import shaped_anchor
from recast_sim.signal.steps.over_batch import (
    beta_normalised,
    rescaled_by_rewarded,
    tracked_baseline,
    whitened,
    whitened_centred,
)
from recast_sim.signal.steps.pair import anchor_against_hardest, anchor_alone, boundary_contrast
from recast_sim.signal.steps.rank import rank_penalised, windowed
from recast_sim.signal.steps.repair import inject_last, inject_target, repair_all_zero
from recast_sim.signal.steps.subgroup import anchored_subgroup, softmax_preference
from recast_sim.signal.steps.support import keep_first_two, keep_max_variance, keep_nonzero, keep_varied_groups


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


@register("reinforce_pp", source="arXiv 2501.03262, verl", all_zero="negative", compares=False)
def reinforce_pp(state: GroupState) -> GroupState:
    """Rewards whitened over the batch: no group statistics at all."""
    return whitened(state)


@register("reinforce_pp_baseline", source="arXiv 2501.03262, verl")
def reinforce_pp_baseline(state: GroupState) -> GroupState:
    """Group-centred rewards over their standard deviation in the batch."""
    return whitened_centred(state)


@register("gpg", source="arXiv 2504.02546, verl")
def gpg(state: GroupState) -> GroupState:
    """Group-centred rewards, scaled up by the batch's share of rewarded rows."""
    return rescaled_by_rewarded(state)


@register("dapo", source="arXiv 2503.14476", width="G of kept groups", all_zero="redrawn", redraws=True)
def dapo(state: GroupState) -> GroupState:
    """GRPO on groups with variance; the others are dropped and redrawn, and the redraw is paid for."""
    return standardised(keep_varied_groups(state))


@register("max_rl", source="arXiv 2602.02710")
def max_rl(state: GroupState) -> GroupState:
    """Centred rewards over the group's mean reward."""
    return mean_scaled(state)


@register("reward_share", source="arXiv 2503.19618")
def reward_share(state: GroupState) -> GroupState:
    """Rewards over the group's mean reward, uncentred: how much of the group's likelihood each row brings."""
    return over_the_mean(state)


@register("bnpo", source="arXiv 2506.02864")
def bnpo(state: GroupState) -> GroupState:
    """Group-centred rewards over a Beta density fitted to the batch's hit rates."""
    return beta_normalised(state)


@register("pass_at_k", source="arXiv 2508.10751")
def pass_at_k(state: GroupState) -> GroupState:
    """The advantage of each row in the k-subsets that hold it, averaged."""
    return at_least_one_of_k(state)


@register("w_reinforce", source="arXiv 2506.01347", all_zero="negative", compares=False)
def w_reinforce(state: GroupState) -> GroupState:
    """positive_weight times the reward on hits, -1 on misses."""
    return signed(state, state.config.positive_weight, 1.0)


@register("psr", source="arXiv 2506.01347", compares=False)
def psr(state: GroupState) -> GroupState:
    """Positive-sample reinforcement: the hits alone."""
    return signed(state, 1.0, 0.0)


@register("nsr", source="arXiv 2506.01347", all_zero="negative", compares=False)
def nsr(state: GroupState) -> GroupState:
    """Negative-sample reinforcement: -1 on the misses alone."""
    return signed(state, 0.0, 1.0)


@register("ngrpo", source="arXiv 2509.18851", all_zero="negative")
def ngrpo(state: GroupState) -> GroupState:
    """GRPO beside one virtual row of the highest reward."""
    return virtual_maximum(state)


@register("rank_reward", source="arXiv 2510.12211, MiniOneRec", needs=("logprob_PG",))
def rank_reward(state: GroupState) -> GroupState:
    """GRPO on rewards that push the likelier misses of a hit group further down."""
    return rank_penalised(state)


@register("pods", source="arXiv 2504.13818", width="pods_width")
def pods(state: GroupState) -> GroupState:
    """GRPO inside the subset of rows with the largest reward variance."""
    return standardised(keep_max_variance(state))


@register("add_gt", source="MiniOneRec", all_zero="repaired", anchors="always")
def add_gt(state: GroupState) -> GroupState:
    """GRPO after the last row of every group became the target."""
    return standardised(inject_last(state))


@register("two_grpo", source="arXiv 2510.00977", width="2")
def two_grpo(state: GroupState) -> GroupState:
    """GRPO at G = 2. Draw groups of two: of wider ones it reads the first two valid rows, and the budget pays for all."""
    return standardised(keep_first_two(state))


@register(
    "care",
    source="arXiv 2512.19554",
    width="1 + care_negatives",
    all_zero="rescued",
    structural=True,
    needs=("logprob_PG",),
)
def care(state: GroupState) -> GroupState:
    """The best hit against the hardest misses, or the likeliest miss in its place. Its anchor is a rollout, not the target."""
    return keep_nonzero(anchored_subgroup(state))


@register("luffy", source="arXiv 2504.14945", all_zero="repaired", anchors="always", needs=("anchor_logprob_P",))
def luffy(state: GroupState) -> GroupState:
    """The target as an off-policy member of the group: centred rewards, the shaped ratio on its row."""
    return shaped_anchor(centred(inject_last(state)))


@register("visurf", source="arXiv 2510.10606", width="G + 1", all_zero="repaired", anchors="always", appends=True)
def visurf(state: GroupState) -> GroupState:
    """The target as one more row, whose reward is the group's mean once there is a hit."""
    return smoothed_anchor(inject_last(state))


@register("wpauc", source="arXiv 2604.22504", needs=("logprob_PG",))
def wpauc(state: GroupState) -> GroupState:
    """GRPO with the misses weighed by a window over their rank."""
    return windowed(state)


@register("spo", source="arXiv 2509.13232", all_zero="-baseline", needs=("baseline_P",), compares=False)
def spo(state: GroupState) -> GroupState:
    """Rewards minus the caller's running baseline, normalised over the batch."""
    return tracked_baseline(state)


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


@register("sft_hard_negative", source="control", width="2", all_zero="repaired", anchors="always", structural=True)
def sft_hard_negative(state: GroupState) -> GroupState:
    """Supervision on the target minus the hardest on-policy miss.

    With one target a prompt this *is* recast on every group that has a miss.
    """
    return keep_nonzero(anchor_against_hardest(inject_target(state)))


@register(
    "s_dpo",
    source="arXiv 2406.09215",
    width="1 + sdpo_negatives",
    all_zero="repaired",
    anchors="always",
    structural=True,
    needs=("logprob_PG", "anchor_logprob_P", "reference_logprob_PG", "anchor_reference_logprob_P"),
)
def s_dpo(state: GroupState) -> GroupState:
    """Softmax-DPO of the target against the hardest on-policy misses, as row weights."""
    return keep_nonzero(softmax_preference(inject_target(state)))
