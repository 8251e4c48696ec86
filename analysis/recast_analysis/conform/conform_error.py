"""The error of the conformance kit."""

from recast_sim.errors import RecastError


class ConformError(RecastError):
    """A target, a method or a golden file that cannot be used; one line, with the fix."""
