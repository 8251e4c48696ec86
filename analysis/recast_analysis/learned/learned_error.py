"""The one error of `recast-report learned`."""

from recast_sim.errors import RecastError


class LearnedError(RecastError):
    """Scores that cannot be compared; the message says file, line or row, column, what was found, and the fix."""
