"""Files and folders that are there whole or not at all: written to a temporary name, then renamed."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class RunError(ValueError):
    """A folder that is not a readable run, a row that does not fit it, or a full disk; the message names the path."""


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Say which file a full disk keeps from being written, and what to do; the system's own error does not.

    Raises:
        RunError: no space, no quota, a file beyond the size that is allowed, or a failing disk. Other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise RunError(f"{path}: cannot be written: {error.strerror}; free space there, then go on with --resume") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file by rename."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename; NaN is refused, since no other reader would take it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to it on success, removed on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` on success, and is removed on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with full_disk(path):
            temporary.mkdir(parents=True)
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written directly in a folder."""
    for temporary in folder.glob(".*.tmp"):
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink()
