"""The one error of the planner."""

from recast_sim.errors import RecastError


class PlanError(RecastError):
    """What was asked for cannot be planned; the message names the argument, its value and the fix."""
