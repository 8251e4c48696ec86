"""Files and folders that are there whole or not at all: written to a temporary name, then renamed."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recast_sim.errors import RecastError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_NUMBER = re.compile(r"os error (\d+)")  # how Rust's libraries end what the system said


class RunError(RecastError):
    """A folder that is not a readable run, a row that does not fit it, or a full disk; the message names the path."""


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Say which file cannot be written, why, and what to do; the errors of the system, polars and safetensors do not.

    Raises:
        RunError: no space, no quota, a file beyond the size that is allowed, a failing disk, or an error of the system that
            names no file. Other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK and (error.filename or error.errno is None):
            raise
        raise _unwritten(path, error.errno or 0) from error
    except Exception as error:
        told = _NUMBER.search(str(error))
        if told is None or isinstance(error, RunError):
            raise
        raise _unwritten(path, int(told[1])) from error


def _unwritten(path: Path, number: int) -> RunError:
    mend = "free space there, then go on with --resume" if number in _DISK else "mend that, then go on with --resume"
    return RunError(f"{path}: cannot be written: {os.strerror(number)}; {mend}")


def write_text(path: Path, text: str) -> None:
    """Write a text file by rename."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename. Raises RunError for NaN and infinities, which no other reader would take."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, default=str)
    except ValueError as error:
        raise RunError(f"{path}: a result is not finite, so it is no JSON ({error}); lower the learning rate") from error
    write_text(path, text + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to it on success, removed on failure.

    It is absolute: polars takes a leading `~` for the home folder.
    """
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the place of `path` on success, and is removed on failure."""
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
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
