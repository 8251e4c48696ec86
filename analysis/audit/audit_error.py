"""The one error of the audit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polars.exceptions import PanicException, PolarsError


class AuditError(ValueError):
    """A dump that cannot be audited; the message says file, line or row, field, what was found, and the mend."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into an AuditError; polars' Rust panics are no Exceptions."""
    try:
        yield
    except (PolarsError, PanicException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise AuditError(f"{path}: cannot be read ({first}); is it damaged or cut off? fetch it again") from error
