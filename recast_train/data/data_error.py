"""The one error of the readers."""


class DataError(ValueError):
    """A data file or table that cannot be used; the message says where, what was found, and the mend."""
