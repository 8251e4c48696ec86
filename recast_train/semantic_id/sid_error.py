"""The error of everything about semantic IDs, and the check that its configs share."""

from recast_sim.errors import RecastError


class SemanticIdError(RecastError):
    """Settings, embeddings, codes or files that cannot give semantic IDs; the message says what was found and the mend."""


def require(ok: bool, field: str, value: object, mend: str) -> None:
    """Raise SemanticIdError naming the field, its value and the mend unless `ok`."""
    if not ok:
        raise SemanticIdError(f"{field}: {value} {mend}")
