"""The one error of the readers."""

from recast_sim.errors import RecastError


class DataError(RecastError):
    """A data file or table that cannot be used; the message says where, what was found, and the mend."""
