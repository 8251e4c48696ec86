"""Data sets that are fetched: files checked by their sha256 before they enter a cache, a folder at a time, by one rename."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from recast_sim.bounded import MEGABYTE, read_bounded
from recast_train.data.data_error import DataError

LARGEST = 16 * MEGABYTE  # of a file; the largest has 3


def cache_folder(name: str, cache_dir: Path | None) -> Path:
    """The folder of a data set in `cache_dir`, else $RECAST_CACHE, else ~/.cache/recast."""
    return (cache_dir or Path(os.environ.get("RECAST_CACHE") or Path.home() / ".cache" / "recast")) / name


def fetched(folder: Path, sha256: Mapping[str, str], contents: Callable[[Path], dict[str, bytes]]) -> Path:
    """The folder with its files as `sha256` says; where it is missing, `contents` is given a scratch folder and makes them.

    Safe to call from several processes at once: the first to finish places the folder and the others use it.

    Raises:
        DataError: with the mend, for a file of a wrong hash, and for one that cannot be read or written.
    """
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _fill(folder, contents)
        for name in sha256:
            path = folder / name
            if not path.is_file():
                raise DataError(f"{path}: not in the cache; delete {folder} and fetch again")
            content, mend = read_bounded(path, LARGEST, DataError), f"delete {folder} and fetch again"
            checked(content, folder, name, sha256[name], mend)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read or written ({error}); set RECAST_CACHE to another folder") from error
    return folder


def checked(content: bytes, place: object, name: str, expected: str, mend: str) -> bytes:
    """The content of a file. Raises DataError where its sha256 is another than expected."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(f"{place}: {name} has sha256 {found}, expected {expected}; {mend}")
    return content


def _fill(folder: Path, contents: Callable[[Path], dict[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
        found = contents(Path(scratch))
        ready = Path(scratch) / folder.name
        ready.mkdir()
        for name, content in found.items():
            (ready / name).write_bytes(content)
        try:
            os.rename(ready, folder)
        except OSError:
            if not folder.exists():  # else another process was first, and its files are verified next
                raise
