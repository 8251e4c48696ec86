"""Run folders from somewhere else: every fault is one RunError; every path is a literal path."""

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recast_sim.bounded import JSON_DEPTH, read_bounded, read_json_file
from recast_sim.runs import RunError, RunWriter, read_run
from recast_sim.runs.reader import fits_its_kind
from recast_sim.runs.table_files import read_table, text_lines

ROOT = Path(__file__).parents[3]


def write_run(path: Path, score: float = 0.5) -> Path:
    writer = RunWriter.create(path, "simulation", {"training": {"constructor": "recast"}}, 0)
    writer.step({"step": 1, "score": score})
    writer.groups({"step": [1], "score": [score]})
    writer.close()
    return path


@pytest.mark.parametrize("name", ["a[b]", "gl*", "gl?", "~", "{x}", "a=1", "sp ace", "[!a]", "**", "$HOME", "%41", "s3:"])
def test_a_folders_name_is_no_pattern(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for score, neighbour in enumerate(("ab", "gl1", "b", "x", "g", "other")):
        write_run(tmp_path / neighbour, float(score))
    monkeypatch.chdir(tmp_path)
    run = read_run(write_run(Path(name), 0.25))
    assert (Path(tmp_path) / name).is_dir()
    assert run.steps["score"].to_list() == run.groups["score"].to_list() == [0.25]


def test_parquet_is_read_by_the_helpers_alone() -> None:
    """polars takes a path for a pattern unless it is told not to."""
    readers, found = ("read_parquet", "scan_parquet", "read_csv", "scan_csv", "scan_ndjson"), set()
    for file in (file for package in ("recast_sim", "recast_train", "analysis") for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"pl.{name}" for name in readers}:
                found |= set() if any(word.arg == "glob" for word in node.keywords) else {str(file.relative_to(ROOT))}
    assert found == set()


def test_whole_files_are_read_by_the_helpers_alone() -> None:
    """A device or a pipe never ends."""
    found = set()
    for file in (file for package in ("recast_sim", "recast_train", "analysis") for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and (node.func.attr in ("read_text", "read_bytes") or ast.unparse(node).endswith(".open('rb')"))
            ):
                found |= {(str(file.relative_to(ROOT)), ast.unparse(node.func))}
    of_the_package = {
        ("analysis/recast_analysis/glossary.py", "FILE.read_text"),
        ("recast_sim/commandline/running.py", "Path(spec.origin).read_text"),
    }
    assert found == of_the_package


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / "manifest.json"
        manifest = json.loads(file.read_text())
        change(manifest)
        file.write_text(json.dumps(manifest))

    return apply


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content) and None  # type: ignore[return-value]


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return apply


DEEP = b'{"schema_version": 1, "a": ' + b"[" * 5000 + b"]" * 5000 + b"}"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no seed": (edit(lambda m: m.pop("seed")), "key 'seed': Field required"),
    "seed of text": (edit(lambda m: m.update(seed="4")), "key 'seed': Input should be a valid integer"),
    "seed true": (edit(lambda m: m.update(seed=True)), "key 'seed'"),
    "config a list": (edit(lambda m: m.update(config=[])), "key 'config': Input should be a valid dictionary"),
    "status a number": (edit(lambda m: m.update(status=1)), "key 'status'"),
    "git a text": (edit(lambda m: m.update(git="x")), "key 'git'"),
    "versions nested": (edit(lambda m: m.update(versions={"torch": {}})), "key 'versions.torch'"),
    "version true": (edit(lambda m: m.update(schema_version=True)), "schema_version True is not 1"),
    "no object": (put("manifest.json", b"[]"), "schema_version None is not 1"),
    "deep": (put("manifest.json", DEEP), f"JSON nested over {JSON_DEPTH} deep"),
    "somewhat deep": (put("manifest.json", b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}"), f"JSON nested over {JSON_DEPTH} deep"),
    "not utf-8": (put("manifest.json", b"\xff{}"), "not UTF-8 text .invalid start byte at byte 0."),
    "nan": (put("manifest.json", b'{"a": NaN}'), "holds the number NaN"),
    "infinite": (put("manifest.json", b'{"a": 1e999}'), "holds the number 1e999"),
    "long number": (put("manifest.json", b'{"a": ' + b"1" * 5000 + b"}"), "not JSON: Exceeds the limit"),
    "pipe": (instead("manifest.json", os.mkfifo), "is no ordinary file"),
    "device": (instead("manifest.json", lambda path: path.symlink_to("/dev/zero")), "is no ordinary file"),
    "folder": (instead("manifest.json", Path.mkdir), "is no ordinary file"),
    "pipe of rows": (instead("steps.parquet", os.mkfifo), "is no ordinary file"),
    "device of rows": (instead("steps.parquet", lambda path: path.symlink_to("/dev/zero")), "is no ordinary file"),
    "rows without step": (lambda root: pl.DataFrame({"a": [1]}).write_parquet(root / "steps.parquet"), "no column 'step'"),
    "steps of text": (lambda root: pl.DataFrame({"step": ["1"]}).write_parquet(root / "steps.parquet"), "no column 'step'"),
    "a list for a row": (put("steps.jsonl", b"[1]\n"), "line 1: is no JSON object, so no row"),
    "rows of two forms": (put("steps.jsonl", b'{"step": 1}\n{"step": {"a": 1}}\n'), "does not hold|no column"),
    "groups of two forms": (
        lambda root: pl.DataFrame({"other": [1]}).write_parquet(root / "groups-00000009.parquet"),
        "does not hold what a run of its kind holds",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_is_one_error(tmp_path: Path, case: str) -> None:
    harm, said = HOSTILE[case]
    harm(write_run(tmp_path / "run"))
    with pytest.raises(RunError, match=said):
        read_run(tmp_path / "run")


def test_reads_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 11)
    with pytest.raises(RunError, match=r"a: has over 9\.53674e-06 MB, the most that is read of it"):
        read_bounded(file, 10, RunError)
    assert read_bounded(file, 11, RunError) == b"x" * 11
    file.write_bytes(b'{"a": [1.5, null]}')
    assert read_json_file(file, RunError) == {"a": [1.5, None]}
    with file.open("wb") as line:
        line.truncate(60_000_000)  # one line without an end, and without taking the room
    with pytest.raises(RunError, match=r"a: line 1: the line has over 32 MB, the most that is read; cut it"):
        list(text_lines(file, RunError))
    with pytest.raises(RunError, match="is no ordinary file"):
        list(text_lines(Path("/dev/zero"), RunError))
    with pytest.raises(RunError, match=r"nowhere: not readable \(No such file"):
        read_table(tmp_path / "nowhere", RunError)


def test_code_that_finds_nothing_to_take_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not hold what a run of its kind holds"), fits_its_kind(tmp_path):
        next(iter(()))
