"""Every figure of a plan, JSON-ready: None stands for what cannot be told, and for an end that is infinite."""

from typing import Any

import numpy as np

from recast_analysis.planner.acting import Acting
from recast_analysis.planner.hit_rates import Bounded, Estimate
from recast_analysis.planner.next_run import NextRun
from recast_analysis.planner.study_size import StudyPlan


def plan_summary(planned: NextRun) -> dict[str, Any]:
    log, rates, question = planned.log, planned.rates, planned.question
    a, b = (None, None) if isinstance(rates, Bounded) else rates.shape
    return {
        "log": {"source": log.source, "prompts": log.prompts, "rollouts": log.rollouts, "group_size": log.group_size},
        "hit_rates": {
            "mean": _json(rates.mean),
            "a": _finite(a),
            "b": _finite(b),
            "p_value": None if isinstance(rates, Bounded) else rates.p_value,
            "refused": rates.reason if isinstance(rates, Bounded) else None,
        },
        "rollouts": question.rollouts,
        "sizes": [
            {
                "group_size": plan.group_size,
                "groups": plan.groups,
                **{name: _json(getattr(plan, name)) for name in ("all_zero", "all_hit", "learnable", "learnable_groups")},
                "counted_all_zero": _json(plan.counted and plan.counted[0]),
                "counted_learnable": _json(plan.counted and plan.counted[1]),
                "signal_to_noise": _json(plan.signal_to_noise),
            }
            for plan in planned.sizes
        ],
        "best_group_size": {"learnable_groups": 2, "signal_to_noise": planned.whole, "width": _json(planned.width)},
        "acting": [_acting_json(one) for one in planned.acting],
        "study": _study_json(planned.study),
        "tokens": None
        if question.lengths is None
        else {
            "prompt": question.lengths.prompt,
            "response": question.lengths.response,
            "unit": question.lengths.unit,
            "rows": [
                {
                    **{name: getattr(cost, name) for name in ("group_size", "rollouts", "all_repeated", "all_shared")},
                    **{name: _json(getattr(cost, name)) for name in ("pair_repeated", "pair_shared")},
                }
                for cost in planned.costs
            ],
        },
        "warnings": log.notes,
    }


def _acting_json(one: Acting) -> dict[str, Any]:
    figures = {name: _json(getattr(one, name)) for name in ("groups", "prompts", "first", "half", "most")}
    return {"acts_on": one.kind.words, "constructors": list(one.kind.names), **figures}


def _study_json(found: StudyPlan | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"refused": found}
    rows = [{"seeds": row.seeds, "prompts": _json(row.prompts), "scatter_at_most": row.at_most_scatter} for row in found.rows]
    scatter = None if found.scatter is None else _json(found.scatter.estimate) | {"source": found.scatter.source}
    return {"effect": found.effect, "base": _json(found.base), "scatter": scatter, "rows": rows}


def _json(value: Estimate | None) -> Any:
    return None if value is None else {name: _finite(getattr(value, name)) for name in ("value", "low", "high")}


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: None stands for it."""
    return None if value is None or not np.isfinite(value) else float(value)
