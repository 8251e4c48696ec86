"""A constructor for rollouts whose first codes were given to them (prefix hints)."""

from dataclasses import replace

from recast_sim.signal.registry import Constructor
from recast_sim.signal.steps.levels import skip_given_levels


def behind_hints(constructor: Constructor, given: int) -> Constructor:
    """The constructor without a number on the first `given` levels of sampled rows; itself where none was given."""
    if not given:
        return constructor
    needs = tuple(dict.fromkeys((*constructor.needs, "sids_PGL", "targets_PTL")))
    return replace(
        constructor, apply=lambda state: skip_given_levels(constructor.apply(state), given), needs=needs, level_wise=True
    )
