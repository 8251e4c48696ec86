"""Rollout groups in, optimisation events out: the module that simulator, trainer, adapters and audit share.

    signal = construct("recast", rewards_PG, structural_PG, has_anchor_P=has_anchor_P)
    signal.plan.rows_N, signal.plan.coefficients_N

A constructor is a composition of three pure steps: repair, advantage, support. Register your own with `@register`.
"""

from recast_sim.signal import constructors as _shipped  # noqa: F401  (registers the shipped constructors)
from recast_sim.signal.construct import Signal, construct
from recast_sim.signal.group_state import GroupState, append_row, group_state
from recast_sim.signal.hints import behind_hints
from recast_sim.signal.objective import (
    Objective,
    ObjectiveConfig,
    clipped_surrogate,
    low_variance_kl,
    plan_objective,
)
from recast_sim.signal.plan import UpdatePlan
from recast_sim.signal.regime import REGIMES, Regime, regime_codes, regime_shares
from recast_sim.signal.registry import Constructor, get_constructor, list_constructors, register, unregister
from recast_sim.signal.signal_config import SignalConfig, SignalError
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
from recast_sim.signal.steps.anchor_weight import mixed, shaped_anchor, tempered
from recast_sim.signal.steps.beside_anchor import gated_by_difficulty, with_anchor_likelihood, with_list_of_misses
from recast_sim.signal.steps.graded import confidence_weighted_misses, deepest_match, exponential_rewards
from recast_sim.signal.steps.level_advantages import (
    among_siblings,
    entropy_weighted,
    likelihood_weighted,
    step_aligned,
    token_weighted_anchor,
)
from recast_sim.signal.steps.levels import (
    by_level,
    from_first_missed_level,
    mask_shared_prefix,
    only_diverging_level,
    skip_given_levels,
    target_matches,
)
from recast_sim.signal.steps.over_batch import (
    beta_normalised,
    rescaled_by_rewarded,
    tracked_baseline,
    whitened,
    whitened_centred,
)
from recast_sim.signal.steps.pair import (
    anchor_against_hardest,
    anchor_alone,
    boundary_contrast,
    rescue_with_anchor,
    soften_near_misses,
)
from recast_sim.signal.steps.rank import likelihood_rank, rank_penalised, windowed
from recast_sim.signal.steps.repair import choose_anchor, inject_all_zero, inject_last, inject_target, repair_all_zero
from recast_sim.signal.steps.subgroup import anchored_subgroup, softmax_preference
from recast_sim.signal.steps.support import keep_first_two, keep_max_variance, keep_nonzero, keep_varied_groups
from recast_sim.signal.structural import default_level_scores, exact_hit, level_matches, prefix_length, structural_score

__all__ = [
    "REGIMES",
    "Constructor",
    "GroupState",
    "Objective",
    "ObjectiveConfig",
    "Regime",
    "Signal",
    "SignalConfig",
    "SignalError",
    "UpdatePlan",
    "among_siblings",
    "anchor_against_hardest",
    "anchor_alone",
    "anchored_subgroup",
    "append_row",
    "at_least_one_of_k",
    "behind_hints",
    "beta_normalised",
    "boundary_contrast",
    "by_level",
    "centred",
    "choose_anchor",
    "clipped_surrogate",
    "confidence_weighted_misses",
    "construct",
    "deepest_match",
    "default_level_scores",
    "entropy_weighted",
    "exact_hit",
    "exponential_rewards",
    "from_first_missed_level",
    "gated_by_difficulty",
    "get_constructor",
    "group_state",
    "inject_all_zero",
    "inject_last",
    "inject_target",
    "keep_first_two",
    "keep_max_variance",
    "keep_nonzero",
    "keep_varied_groups",
    "leave_one_out",
    "level_matches",
    "likelihood_rank",
    "likelihood_weighted",
    "list_constructors",
    "low_variance_kl",
    "mask_shared_prefix",
    "mean_scaled",
    "mixed",
    "only_diverging_level",
    "over_the_mean",
    "plan_objective",
    "prefix_length",
    "rank_penalised",
    "regime_codes",
    "regime_shares",
    "register",
    "repair_all_zero",
    "rescaled_by_rewarded",
    "rescue_with_anchor",
    "shaped_anchor",
    "signed",
    "skip_given_levels",
    "smoothed_anchor",
    "soften_near_misses",
    "softmax_preference",
    "standardised",
    "step_aligned",
    "structural_score",
    "target_matches",
    "tempered",
    "token_weighted_anchor",
    "tracked_baseline",
    "unregister",
    "virtual_maximum",
    "whitened",
    "whitened_centred",
    "windowed",
    "with_anchor_likelihood",
    "with_list_of_misses",
]
