"""What is fetched enters the cache whole and by hash, from wherever it comes."""

import hashlib
import os
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recast_train.data import (
    DataConfig,
    DataError,
    cache,
    cached_ml100k,
    fetch_ml100k,
    fetch_yoochoose,
    load_source,
    ml100k,
    yoochoose,
)


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def fake_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with three small files, and their hashes in place of the real ones."""
    path = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    contents = {name: f"content of {name}\n".encode() for name in ml100k.SHA256}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{ml100k.MEMBERS}/{name}", content)
    monkeypatch.setattr(ml100k, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()})
    return path


def test_fetch_places_three_files_and_nothing_else(tmp_path: Path, fake_wheel: Path) -> None:
    folder = fetch_ml100k(tmp_path / "cache", fake_wheel)
    assert sorted(path.name for path in folder.iterdir()) == ["ml-100k.inter", "ml-100k.item", "ml-100k.user"]
    assert (folder / "ml-100k.item").read_text() == "content of ml-100k.item\n"
    assert [path.name for path in folder.parent.iterdir()] == ["ml-100k"]
    fake_wheel.unlink()
    assert fetch_ml100k(tmp_path / "cache", fake_wheel) == folder  # from the cache: the wheel is gone


def test_fetch_uses_the_cache_of_the_environment(tmp_path: Path, fake_wheel: Path, monkeypatch) -> None:
    monkeypatch.setenv("RECAST_CACHE", str(tmp_path / "elsewhere"))
    assert fetch_ml100k(wheel=fake_wheel) == tmp_path / "elsewhere" / "ml-100k"


def test_the_cache_alone_fetches_nothing(tmp_path: Path, fake_wheel: Path) -> None:
    assert cached_ml100k(tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists()
    folder = fetch_ml100k(tmp_path / "cache", fake_wheel)
    assert cached_ml100k(tmp_path / "cache") == folder


def test_a_wrong_hash_leaves_nothing_behind(tmp_path: Path, fake_wheel: Path, monkeypatch) -> None:
    monkeypatch.setitem(ml100k.SHA256, "ml-100k.item", "0" * 64)
    with pytest.raises(DataError, match=r"ml-100k\.item has sha256 [0-9a-f]{64}, expected 0{64}; .*--wheel PATH"):
        fetch_ml100k(tmp_path / "cache", fake_wheel)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_cache_is_an_error_that_says_what_to_delete(tmp_path: Path, fake_wheel: Path) -> None:
    folder = fetch_ml100k(tmp_path / "cache", fake_wheel)
    (folder / "ml-100k.user").write_text("other")
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(DataError, match=f"ml-100k.user has sha256 {found}, expected .*; delete {folder}"):
        fetch_ml100k(tmp_path / "cache", fake_wheel)
    (folder / "ml-100k.user").unlink()
    with pytest.raises(DataError, match=r"ml-100k\.user: not in the cache; delete"):
        fetch_ml100k(tmp_path / "cache", fake_wheel)


def test_fetches_at_once_all_get_the_folder(tmp_path: Path, fake_wheel: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: fetch_ml100k(tmp_path / "cache", fake_wheel), range(24)))
    assert set(folders) == {tmp_path / "cache" / "ml-100k"}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ml-100k"]


def test_the_loser_of_a_race_verifies_what_the_winner_placed(tmp_path: Path, fake_wheel: Path, monkeypatch) -> None:
    def beaten(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "ml-100k.inter").write_text("other")
        raise OSError("Directory not empty")

    monkeypatch.setattr(cache.os, "rename", beaten)
    with pytest.raises(DataError, match=r"ml-100k\.inter has sha256"):
        fetch_ml100k(tmp_path / "cache", fake_wheel)


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_a_file_that_is_no_wheel_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.whl").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.whl: not a recbole wheel"):
        fetch_ml100k(tmp_path / "cache", tmp_path / "x.whl")


def test_a_failing_pip_is_one_line_with_the_mend(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ml100k, "_from_installed", lambda: None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"recbole==1\.2\.1: pip download failed .*--wheel PATH") as caught:
        fetch_ml100k(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_installed_recbole_is_read_and_not_imported(tmp_path: Path, fake_wheel: Path, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(fake_wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    (site / "recbole" / "__init__.py").write_text("raise RuntimeError('imported')")
    info = site / "recbole-1.2.1.dist-info"
    info.mkdir()
    write(info / "METADATA", "Metadata-Version: 2.1", "Name: recbole", "Version: 1.2.1")
    write(info / "RECORD", *(f"{name},," for name in names))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(ml100k.subprocess, "run", None)  # the download would fail
    assert (fetch_ml100k(tmp_path / "cache") / "ml-100k.inter").read_text() == "content of ml-100k.inter\n"


# YooChoose clicks: the real hashes are those of the repository at its commit; here two small files stand for them


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small files, and their hashes in place of the real ones."""
    folder, rows = tmp_path / "parts", {}
    folder.mkdir()
    for place, name in enumerate(yoochoose.PARTS):
        lines = [
            f"{session}\t{7 * session % 5 + click}\t{100 * session + click}.5"
            for session in range(20 * place, 20 * place + 20)
            for click in range(4)
        ]
        rows[name] = "\n".join(["SessionId\tItemId\tTime", *lines]) + "\n"
        (folder / name).write_text(rows[name])
    monkeypatch.setattr(yoochoose, "PARTS", {name: hashlib.sha256(text.encode()).hexdigest() for name, text in rows.items()})
    one = "".join(text.split("\n", 1)[1] if place else text for place, text in enumerate(rows.values())).replace("\t", ",")
    monkeypatch.setattr(yoochoose, "SHA256", {yoochoose.FILE: hashlib.sha256(one.encode()).hexdigest()})
    return folder


def test_two_files_of_clicks_become_one(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch_yoochoose(tmp_path / "cache", parts)
    lines = (folder / yoochoose.FILE).read_text().splitlines()
    assert lines[:2] == ["SessionId,ItemId,Time", "0,0,0.5"]
    assert len(lines) == 1 + 2 * 20 * 4
    monkeypatch.setenv("RECAST_CACHE", str(tmp_path / "cache"))
    source = load_source(DataConfig("yoochoose-100k", core=(1,)))
    assert (len(source.users), len(source.items)) == (40, 8)
    monkeypatch.setattr(urllib.request, "urlopen", None)  # from the cache
    assert fetch_yoochoose() == folder


def test_clicks_are_downloaded_and_checked(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yoochoose, "URL", parts.as_uri())
    assert (fetch_yoochoose(tmp_path / "one") / yoochoose.FILE).exists()
    last = list(yoochoose.PARTS)[1]
    (parts / last).write_text("another")
    with pytest.raises(DataError, match=f"{last} has sha256 .*, expected"):
        fetch_yoochoose(tmp_path / "two")
    (parts / last).unlink()
    with pytest.raises(DataError, match=f"{last}: not fetched .*give --parts FOLDER"):
        fetch_yoochoose(tmp_path / "two")
    (parts / last).write_bytes(bytes(yoochoose.LARGEST + 1))
    with pytest.raises(DataError, match="has over 16 MB"):
        fetch_yoochoose(tmp_path / "two")
    assert list((tmp_path / "two").iterdir()) == []


def test_the_address_names_a_commit_and_the_hashes_are_whole() -> None:
    assert yoochoose.COMMIT in yoochoose.URL
    assert all(len(sha256) == 64 for sha256 in (*yoochoose.PARTS.values(), *yoochoose.SHA256.values()))
