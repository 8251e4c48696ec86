"""The one error of the audit."""


class AuditError(ValueError):
    """A dump that cannot be audited; the message says file, line or row, field, what was found, and the fix."""
