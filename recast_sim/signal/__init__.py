"""Rollout groups in, optimisation events out: the module that simulator, trainer, adapters and audit share.

    signal = construct("recast", rewards_PG, structural_PG, has_anchor_P=has_anchor_P)
    signal.plan.rows_N, signal.plan.coefficients_N

A constructor is a composition of three pure steps: repair, advantage, support. Register your own with `@register`.
"""

from recast_sim.signal import constructors as _shipped  # noqa: F401  (registers the shipped constructors)
from recast_sim.signal.advantage import (
    anchor_against_hardest,
    anchor_alone,
    boundary_contrast,
    centred,
    leave_one_out,
    mean_scaled,
    standardised,
)
from recast_sim.signal.config import SignalConfig, SignalError
from recast_sim.signal.construct import Signal, UpdatePlan, construct
from recast_sim.signal.objective import (
    Objective,
    ObjectiveConfig,
    clipped_surrogate,
    low_variance_kl,
    plan_objective,
)
from recast_sim.signal.regime import REGIMES, Regime, regime_codes, regime_shares
from recast_sim.signal.registry import Constructor, get_constructor, list_constructors, register, unregister
from recast_sim.signal.repair import choose_anchor, inject_last, inject_target, repair_all_zero
from recast_sim.signal.state import GroupState, group_state
from recast_sim.signal.structural import default_level_scores, exact_hit, prefix_length, structural_score
from recast_sim.signal.support import keep_max_variance, keep_nonzero, keep_varied_groups

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
    "anchor_against_hardest",
    "anchor_alone",
    "boundary_contrast",
    "centred",
    "choose_anchor",
    "clipped_surrogate",
    "construct",
    "default_level_scores",
    "exact_hit",
    "get_constructor",
    "group_state",
    "inject_last",
    "inject_target",
    "keep_max_variance",
    "keep_nonzero",
    "keep_varied_groups",
    "leave_one_out",
    "list_constructors",
    "low_variance_kl",
    "mean_scaled",
    "plan_objective",
    "prefix_length",
    "regime_codes",
    "regime_shares",
    "register",
    "repair_all_zero",
    "standardised",
    "structural_score",
    "unregister",
]
