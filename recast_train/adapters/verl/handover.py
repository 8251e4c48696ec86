"""How the sampler's advantages reach the estimator: as a row's score, under a uid that says whose they are.

verl gives an estimator a row's token-level scores, its response mask and its uid, and nothing else.
"""

from collections.abc import Iterable

from recast_sim.signal import SignalError

_MARK = "recast"


def mark(constructor: str, key: str) -> str:
    """The uid of a row whose score is its coefficient; `key` is unique, so that every row is a group of its own."""
    return f"{_MARK}:{constructor}:{key}"


def marked_by(uids: Iterable[str]) -> str | None:
    """The constructor of rows that a sampler handed over, None where no row is marked.

    Raises:
        SignalError: some rows are marked and others not, or by different constructors.
    """
    names = {uid.split(":", 2)[1] if uid.startswith(f"{_MARK}:") else None for uid in uids}
    if len(names) > 1:
        raise SignalError(f"uid: rows handed over by {sorted(map(str, names))} in one batch; restart from an empty queue")
    return next(iter(names), None)
