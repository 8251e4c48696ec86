"""Reads that end: a wheel that unpacks without end, devices and pipes in the place of files; a disk that is full."""

import os
import resource
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recast_sim.runs import RunError, atomic_file
from recast_train.data import DataError
from recast_train.data.ml100k import MEMBERS, SHA256, fetch_ml100k


def test_a_wheel_that_is_a_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in SHA256:
            archive.writestr(f"{MEMBERS}/{name}", bytes(40_000_000))
    with pytest.raises(DataError, match=r"bomb.whl: .*ml-100k.inter unpacks to over 16 MB; that is no ML-100K"):
        fetch_ml100k(tmp_path / "cache", tmp_path / "bomb.whl")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "text", "nothing"])
def test_a_wheel_that_is_none(tmp_path: Path, kind: str) -> None:
    wheel = tmp_path / "a.whl"
    {
        "pipe": lambda: os.mkfifo(wheel),
        "device": lambda: wheel.symlink_to("/dev/zero"),
        "folder": wheel.mkdir,
        "text": lambda: wheel.write_text("x"),
        "nothing": lambda: None,
    }[kind]()
    with pytest.raises(DataError, match=r"a.whl: .*(is no ordinary file|not a recbole wheel)"):
        fetch_ml100k(tmp_path / "cache", wheel)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 bytes."""
    handler, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_table_on_a_full_disk_names_its_file(tmp_path: Path, full_disk: None) -> None:
    with (
        pytest.raises(
            RunError, match=r"a.parquet: cannot be written: File too large; free space there, then go on with --resume"
        ),
        atomic_file(tmp_path / "a.parquet") as temporary,
    ):
        pl.DataFrame({"a": list(range(10_000))}).write_parquet(temporary)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_system_that_names_no_file_gets_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a: cannot be written: Too many open files"), atomic_file(tmp_path / "a"):
        raise OSError(24, os.strerror(24))
    with pytest.raises(OSError, match="Permission denied: 'b'"), atomic_file(tmp_path / "a"):
        raise PermissionError(13, os.strerror(13), "b")
