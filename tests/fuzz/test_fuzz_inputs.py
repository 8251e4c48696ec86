"""Inputs from anywhere: what says the same gives the same figures, nonsense is refused, and anything else is one of the two."""

import csv
import functools
import gzip
import json
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzzing
import hostile_inputs as hostile
import input_changes as changes
import numpy as np
import polars as pl
import pytest
from commands import Done, Given
from hypothesis import given
from hypothesis import strategies as st

from recast_analysis.cli import main as report
from recast_sim.catalog import Catalog
from recast_sim.commandline import Common, Positional, run_command
from recast_train.cli import main as train
from recast_train.model.model_config import TrainError
from recast_train.model.sid_names import SidNames
from recast_train.semantic_id.embeddings import read_embeddings
from recast_train.semantic_id.given_table import table_of_file

Figures = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    fuzzing.tell_what_was_tried()


@dataclass(frozen=True)
class Read(Common):
    """Read a file of semantic IDs or embeddings."""

    path: Positional[Path] = Path()


def embeddings(command: Read) -> None:
    print(json.dumps(read_embeddings(command.path, hostile.NUMBERS).tolist(), allow_nan=False))


def sids(command: Read) -> None:
    print(json.dumps(table_of_file(command.path, hostile.NUMBERS, "keep").codes_IL.tolist(), allow_nan=False))


def own() -> None:
    raise SystemExit(run_command("recast-x", "", {"embeddings": Given(Read, embeddings), "sids": Given(Read, sids)}))


def read(kind: hostile.Input, path: Path, folder: Path) -> Done:
    options = [word.replace("{}", str(folder)) for word in kind.options]
    if kind.command == "audit":
        return fuzzing.owed(report, "audit", path, "--json", *options)
    if kind.command == "learned":
        return fuzzing.owed(report, "learned", path, *options, "--json")
    if kind.command == "describe":
        return fuzzing.owed(train, "data", "describe", path, "--core", "1", "--json", *options)
    return fuzzing.owed(own, kind.command, path, *options)


def figures(kind: hostile.Input, done: Done) -> Any:
    """What a command found, without the words on where and how; strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no figure")

    found = json.loads(done.stdout, parse_constant=refuse)
    if kind.command == "audit":
        dump = {name: value for name, value in found["dump"].items() if name not in ("form",)}
        return {"dump": dump, **{name: found[name] for name in ("regimes", "waste", "duplicates", "sids", "warnings")}}
    if kind.command == "learned":
        return rounded({name: found[name] for name in ("prompts", "unmatched", "verdict", "figures", "temperatures")})
    if kind.command == "describe":
        words = ("path", "recognised", "notes")
        return {name: value for name, value in found.items() if name not in words}
    return found


def rounded(value: Any) -> Any:
    """Without the last digits, which the order of rows changes."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


@functools.cache
def whole(name: str) -> Any:
    """Figures of an input as it is."""
    kind = hostile.INPUTS[name]
    with tempfile.TemporaryDirectory() as folder:
        done = read(kind, kind.write(Path(folder)), Path(folder))
    assert not done.returncode, (name, done.stderr)
    return figures(kind, done)


@dataclass(frozen=True)
class Tried:
    name: str
    folder: Path
    path: Path

    @property
    def kind(self) -> hostile.Input:
        return hostile.INPUTS[self.name]

    def read(self) -> Done:
        """The command's answer; it leaves the folder as it was."""
        before = listing(self.folder)
        done = read(self.kind, self.path, self.folder)
        assert listing(self.folder) == before, "something is left behind"
        return done

    def count(self, test: str, done: Done) -> None:
        fuzzing.TRIED[f"input, {test}, {self.kind.command}: {'refused' if done.returncode else 'read'}"] += 1


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def changed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, names: list[str], change: Callable[..., str | None]
) -> tuple[Tried, str]:
    """An input in a folder of its own, one of its files changed, and what was done to which."""
    name = data.draw(st.sampled_from(names))
    folder = tmp_path_factory.getbasetemp() / "fuzz-inputs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tried = Tried(name, folder, hostile.INPUTS[name].write(folder))
    file = data.draw(st.sampled_from(changes.files_below(folder)))
    return tried, f"{name}, {file.name}: {change(data.draw, file, tried.kind)}"


NAMES = sorted(hostile.INPUTS)


@fuzzing.tries(14)
@given(data=st.data())
def test_what_says_the_same_gives_the_same(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tried, how = changed(data, tmp_path_factory, NAMES, changes.harmless)
    done = tried.read()
    tried.count("same", done)
    assert not done.returncode, (how, done.stderr)
    assert figures(tried.kind, done) == whole(tried.name), how


@fuzzing.tries(50)
@given(data=st.data())
def test_nonsense_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tried, how = changed(data, tmp_path_factory, [name for name in NAMES if "skip" not in name], changes.nonsense)
    done = tried.read()
    tried.count("nonsense", done)
    assert done.returncode == 2, (how, done.stdout)


@fuzzing.tries(40)
@given(data=st.data())
def test_an_input_from_anywhere(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tried, how = changed(data, tmp_path_factory, NAMES, changes.anything)
    done = tried.read()
    tried.count("anything", done)
    if not done.returncode:
        check_sane(tried, figures(tried.kind, done), how)


def check_sane(tried: Tried, found: Any, how: str) -> None:
    """By other means than the product's: all rows that are there were read, and numbers are such."""
    if tried.kind.command in ("embeddings", "sids"):
        assert np.isfinite(found).all()
        assert len(found) == len(hostile.NUMBERS)
        return
    files = [file for file in changes.files_below(tried.folder) if not file.name.startswith(("items", "titles"))]
    if tried.kind.command == "learned":
        assert found["prompts"] <= min(map(filled, files)), (tried.name, how)
        for row in found["figures"].values():
            assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
        return
    if tried.kind.command == "audit":
        rows, left_out = found["dump"]["rows"], found["dump"]["repeated_steps"]
        assert left_out or rows == sum(map(filled, files)), how
        assert all(0 <= share <= 1 for share in found["regimes"].values())
        assert sum(found["regimes"].values()) == pytest.approx(1)
    elif found["format"] in ("table", "atomic", "sequences"):
        wanted = sum(map(filled, files)) if found["format"] != "sequences" else sum(map(words_less_users, files))
        headless = tried.name == "u.data"
        if wanted:
            assert found["interactions"] in ((wanted, wanted + 1) if headless else (wanted,)), how


def text(file: Path) -> str:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    with opener(file, "rb") as opened:
        return opened.read().decode("utf-8-sig")


def filled(file: Path) -> int:
    """Rows of a file, without its header."""
    if file.read_bytes()[:4] == b"PAR1":
        return pl.read_parquet(file).height
    lines = [line for line in text(file).split("\n") if line.strip()]
    if file.suffix == ".jsonl" or lines[0].startswith("{"):
        return len(lines)
    if '"' in text(file):
        lines = [line for line in csv.reader(text(file).split("\n")) if line]
    return len(lines) - (file.name != "u.data")


def words_less_users(file: Path) -> int:
    return sum(len(line.split()) - 1 for line in text(file).split("\n") if line.strip())


CODES_IL = np.array([[a, b] for a in range(3) for b in range(4)])
TOKENS = [f"a_{code}" for code in range(3)] + [f"b_{code}" for code in range(4)]


@fuzzing.tries(60)
@given(data=st.data())
def test_tokens_of_a_checkpoint_are_found_wherever_they_are(data: st.DataObject) -> None:
    """Any ids, with gaps, in any order, among other tokens; one that an item needs is named when it is missing."""
    catalog = Catalog.from_codes(CODES_IL, (3, 4))
    prefix = data.draw(st.sampled_from(("s_", "")))
    names = [f"<{prefix}{token}>" for token in TOKENS]
    more = data.draw(
        st.lists(st.sampled_from(("<a_9>", "<s_b_7>", "<c_0>", "<a_01>", "<A_1>", "a_1", "<a_1", "<a_-1>", "<|x|>")))
    )
    other = [name for name in more if not name.startswith("<s_" if not prefix else ("<a_9", "<c"))]
    ids = data.draw(st.permutations(range(0, 3 * (len(names) + len(other)))))
    table = dict(zip([*names, *dict.fromkeys(other)], ids, strict=False))
    gone = data.draw(st.sampled_from((None, *names)))
    if gone is not None:
        del table[gone]
        with pytest.raises(TrainError) as refused:
            SidNames.of(catalog, table, "here")
        assert gone in str(refused.value)
    else:
        found = SidNames.of(catalog, table, "here")
        tokens = found.level_tokens(catalog, table)
        assert [int(token) for level in tokens for token in level] == [table[name] for name in names]
        assert found.prefix == prefix
    fuzzing.TRIED[f"input, tokens: {'read' if gone is None else 'refused'}"] += 1


def test_a_pipe_device_or_link_is_refused_wherever_a_file_is_read(tmp_path: Path) -> None:
    """Every file of every input, each replaced by each thing that is no file."""
    for name, kind in hostile.INPUTS.items():
        kind.write(tmp_path)
        for inside in [file.relative_to(tmp_path) for file in changes.files_below(tmp_path)]:
            for how in changes.no_files(tmp_path / inside, kind) if fuzzing.EXAMPLES else ("pipe", "device"):
                shutil.rmtree(tmp_path)
                tmp_path.mkdir()
                path = kind.write(tmp_path)
                changes.replace_by(tmp_path / inside, how)
                assert read(kind, path, tmp_path).returncode == 2, (name, inside, how)
        shutil.rmtree(tmp_path)
        os.mkdir(tmp_path)
