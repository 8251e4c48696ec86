"""The base of every error that recast raises on purpose."""


class RecastError(ValueError):
    """What a user gave cannot be used as it is, or cannot be done; the message says what, its value and the fix.

    Command lines print it as one line and end with status 2. Whoever uses recast as a library may catch it alone.
    """
