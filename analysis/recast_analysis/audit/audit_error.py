"""The one error of the audit."""

from recast_sim.errors import RecastError


class AuditError(RecastError):
    """A dump that cannot be audited; the message says file, line or row, field, what was found, and the fix."""
