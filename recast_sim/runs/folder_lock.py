"""One writer a run folder, by a lock that dies with its process: a run that was killed, however, is free at once.

The lock is `flock` on the file `.lock` in the folder. On one machine the kernel keeps it. On NFS, Linux passes it to the server
as a lock on the whole file, so it holds between machines too, and goes when the client's lease ends (a machine that lost power
holds it for as long as that, about 90 seconds). It does not hold between machines where the mount says `local_lock=flock` (or
`nolock`). A file system without locks (Lustre without `-o flock`) gives a warning, and nobody watches there.
"""

import errno
import fcntl
import os
import socket
import warnings
import weakref
from pathlib import Path

from recast_sim.runs.atomic import RunError

LOCK = ".lock"
_NONE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
_held: "weakref.WeakValueDictionary[Path, FolderLock]" = weakref.WeakValueDictionary()


class FolderLock:
    """The lock of a folder; gone when `release` is called, when nothing refers to it any more, and when the process ends."""

    def __init__(self, path: Path, number: int) -> None:
        self._end = weakref.finalize(self, _unlock, path / LOCK, number, os.getpid())

    def release(self) -> None:
        self._end()


def lock_folder(path: Path) -> FolderLock:
    """Become the folder's only writer. A process that is that already stays it.

    Raises:
        RunError: another process writes there.
    """
    place = path.resolve()
    known = _held.get(place)
    if known is None:
        known = _held[place] = FolderLock(place, _locked(path))
    return known


def _locked(path: Path) -> int:
    file = path / LOCK
    while True:
        number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(number)
            raise RunError(f"{path}: {holder} writes here now; wait for it or stop it, then --resume") from None
        except OSError as error:
            if error.errno not in _NONE:
                os.close(number)
                raise
            words = f"{path}: this file system has no locks ({error.strerror}); see to it that only one process writes here"
            warnings.warn(words, stacklevel=4)
        if _is_still(file, number):
            os.ftruncate(number, 0)
            os.write(number, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return number
        os.close(number)  # its holder was ending and took the file away: lock the next one


def _is_still(file: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(number))
    except FileNotFoundError:
        return False


def _unlock(file: Path, number: int, owner: int) -> None:
    if os.getpid() == owner:  # a forked child only closes its copy
        file.unlink(missing_ok=True)
    os.close(number)
