"""Damaged dumps: each gives an AuditError that says file, line or row, and field; nothing else, and none passes unseen."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from audit_dumps import as_trl, as_verl, rollouts, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.figures_of_audit import audit_summary
from recast_analysis.audit.reading.dump_groups import read_groups

TABLE = rollouts(6)  # 48 rows
LINES = as_verl(TABLE).write_ndjson().encode().splitlines(keepends=True)
CSV = TABLE.write_csv().encode().splitlines(keepends=True)


def audit(*paths: Path, **options: object) -> None:
    audit_summary(read_groups(list(paths), 0.5, **options))  # type: ignore[arg-type]


def changed(lines: list[bytes], number: int, change: Callable[[bytes], bytes]) -> bytes:
    """The file with its line of that number (from 1) changed."""
    return b"".join(change(line) if place == number else line for place, line in enumerate(lines, 1))


def field(**values: object) -> Callable[[bytes], bytes]:
    """A JSON line with other values; ... leaves a key out."""

    def change(line: bytes) -> bytes:
        row = json.loads(line) | values
        return json.dumps({name: value for name, value in row.items() if value is not ...}).encode() + b"\n"

    return change


def cell(place: int, text: bytes) -> Callable[[bytes], bytes]:
    return lambda line: b",".join([*line.rstrip().split(b",")[:place], text, *line.rstrip().split(b",")[place + 1 :]]) + b"\n"


TEXT_FILES = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n \n", "no column|not a dump|lacks"),
    "nul": (b"a,b\n\0", "line 2: holds a NUL"),
    "gzip": (b"\x1f\x8b\x08abc", "compressed by gzip; unpack"),
    "zstd": (b"\x28\xb5\x2f\xfdabc", "compressed by zstd; unpack"),
    "xz": (b"\xfd7zXZ\0", "compressed by xz; unpack"),
    "zip": (b"PK\x03\x04abc", "zip archive; unpack"),
    "prose": (b"some text, and more\nof it, here\n", "lacks step and reward and group among its columns"),
    "json array": (json.dumps([json.loads(line) for line in LINES]).encode(), "line 1: a JSON array; write one"),
    "logged table": (b'{"columns": ["step"], "data": [[1]]}', "line 1: a logged table"),
    "printed table": ("╭─── Step 1 ───╮\n│ Prompt │\n".encode(), "line 1: a printed table.*completions_"),
    "document": (json.dumps(json.loads(LINES[0]), indent=1).encode(), "line 1: not JSON"),
    "key twice": (changed(LINES, 7, lambda line: b'{"score":1.0,' + line[1:]), "is there twice"),
    "long line": (
        b'{"input": "' + b"x" * (33 << 20) + b'"}\n',
        "line 1: the line has over 32 MB, the most that is read; cut it",
    ),
    "json cut off": (b"".join(LINES)[:-9], "line 48: not JSON"),
    "json cut off early": (LINES[0][:30], "line 1: not JSON"),
    "json with more behind": (changed(LINES, 7, lambda line: line.rstrip() + b" x\n"), "line 7: not JSON"),
    "two objects a line": (changed(LINES, 7, lambda line: line.rstrip() + line), "line 7: not JSON"),
    "not an object": (changed(LINES, 9, lambda line: b"[1, 2]\n"), "line 9: found \\[1, 2\\], no JSON object"),
    "not UTF-8": (changed(LINES, 9, lambda line: line.replace(b"user", b"us\xffr")), "line 9: not readable as UTF-8"),
    "raw control": (changed(LINES, 9, lambda line: line.replace(b"user", b"us\x01r")), "line 9: not JSON"),
    "score is NaN": (changed(LINES, 11, field(score=float("nan"))), "line 11, column score: found nan"),
    "score is infinite": (changed(LINES, 11, field(score=float("inf"))), "line 11, column score: found inf"),
    "score is huge": (
        changed(LINES, 11, lambda line: line.replace(b":0.0", b":1e999").replace(b":1.0", b":1e999")),
        "found inf",
    ),
    "score is text": (changed(LINES, 11, field(score="0.5")), "line 11, column score: found '0.5'; write it as Float64"),
    "score is a list": (changed(LINES, 11, field(score=[1.0])), "line 11, column score: found \\[1.0\\]"),
    "score is true": (changed(LINES, 11, field(score=True)), "line 11, column score: found True"),
    "score is null": (changed(LINES, 11, field(score=None)), "line 11, column score: found None"),
    "score is missing": (changed(LINES, 11, field(score=...)), "line 11, column score: it is missing"),
    "score never there": (b"".join(field(score=...)(line) for line in LINES), "lacks reward .*among its columns"),
    "score always text": (b"".join(field(score="1")(line) for line in LINES), "column 'score' .* has type String"),
    "step is a fraction": (changed(LINES, 48, field(step=1.5)), "column step: found 1.5|has type Float64"),
    "step is huge": (changed(LINES, 48, field(step=10**30)), "step"),
    "step is null": (changed(LINES, 48, field(step=None)), "line 48, column step: found None"),
    "input is null": (changed(LINES, 2, field(input=None)), "line 2, column input: found None"),
    "output is missing": (changed(LINES, 2, field(output=...)), "line 2, column output: it is missing"),
    "one row a group": (
        b"".join(field(input=str(n))(line) for n, line in enumerate(LINES)),
        "'input' with 'gts': every group .*group=input",
    ),
    "csv without rows": (CSV[0], "line 2: missing"),
    "csv without a column": (b"".join(line.split(b",", 1)[1] for line in CSV), "lacks step among its columns"),
    "csv column twice": (changed(CSV, 1, cell(1, b"step")), "line 1: column 'step' is there twice"),
    "csv row too short": (changed(CSV, 5, lambda line: line.rsplit(b",", 1)[0] + b"\n"), "line 5: column 'reward' is missing"),
    "csv row too long": (changed(CSV, 5, lambda line: line.rstrip() + b",9\n"), "line 5: too many cells"),
    "csv cut off": (b"".join(CSV)[: -len(CSV[-1]) // 2], "line 49: not CSV"),
    "csv open quote": (changed(CSV, 5, lambda line: b'1,2,"a' + line), "line .*: not CSV|is missing|too many"),
    "csv reward": (changed(CSV, 6, lambda line: line.rsplit(b",", 1)[0] + b",high\n"), "line 6, column reward: found 'high'"),
    "csv reward NaN": (changed(CSV, 6, lambda line: line.rsplit(b",", 1)[0] + b",NaN\n"), "line 6, column reward: found 'NaN'"),
    "csv step": (changed(CSV, 6, cell(0, b"1.5")), "line 6, column step: found '1.5'"),
    "csv without an id": (changed(CSV, 6, cell(1, b"")), "line 6, column prompt_id: found ''"),
    "csv not UTF-8": (changed(CSV, 6, cell(1, b"\xff")), "line 6: not readable as UTF-8"),
}


@pytest.mark.parametrize("name", TEXT_FILES)
def test_damaged_text(name: str, tmp_path: Path) -> None:
    content, message = TEXT_FILES[name]
    path = tmp_path / "dump"
    path.write_bytes(content)
    with pytest.raises(AuditError, match=message) as caught:
        audit(path)
    assert name == "one row a group" or str(caught.value).startswith(str(path))


FRAMES = {
    "no rows": (as_trl(TABLE).clear(), "row 0: missing"),
    "reward null": (
        as_trl(TABLE).with_columns(hit=pl.when(pl.int_range(48) != 20).then("hit")),
        "row 20, column hit: found None",
    ),
    "reward NaN": (
        as_trl(TABLE).with_columns(hit=pl.when(pl.int_range(48) != 20).then("hit").otherwise(float("nan"))),
        "row 20",
    ),
    "no reward": (as_trl(TABLE).drop("hit"), "no column of rewards"),
    "two rewards": (as_trl(TABLE).with_columns(length=0.5), "columns \\['hit', 'length'\\] may each be a reward"),
    "reward text": (
        as_verl(TABLE).cast({"score": pl.String}),
        "column 'score' \\(reward\\) has type String; write it as numbers",
    ),
    "step float": (as_trl(TABLE).cast({"step": pl.Float64}), "column 'step' \\(step\\) has type Float64; write it as whole"),
    "prompt null": (as_trl(TABLE).with_columns(prompt=pl.when(pl.int_range(48) > 3).then("prompt")), "row 0, column prompt"),
    "completion bytes": (as_trl(TABLE).cast({"completion": pl.Binary}), "column 'completion' .* has type Binary"),
    "no step": (as_trl(TABLE).drop("step"), "lacks step and reward"),
    "negative length": (TABLE.with_columns(response_tokens=pl.int_range(48) - 1), "row 0, column response_tokens: found -1"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_damaged_tables(name: str, tmp_path: Path) -> None:
    frame, message = FRAMES[name]
    path = write(frame, tmp_path / "a.parquet")
    with pytest.raises(AuditError, match=message) as caught:
        audit(path)
    assert str(caught.value).startswith(str(path))


def test_paths_options_and_mixtures(tmp_path: Path) -> None:
    verl, trl = write(as_verl(TABLE), tmp_path / "a.jsonl"), write(as_trl(TABLE), tmp_path / "b.parquet")
    with pytest.raises(
        AuditError, match=r"b.parquet: is trl, parquet .* but .*a.jsonl is verl, JSON lines .*; audit them apart"
    ):
        audit(tmp_path)
    with pytest.raises(AuditError, match="c: no such file or folder"):
        audit(tmp_path / "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(AuditError, match="d: the folder holds no files"):
        audit(tmp_path / "d")
    with pytest.raises(AuditError, match="dumps: none given"):
        audit()
    unlike = "must be ROLE=COLUMN with a ROLE of step,"
    for words, message in (("reward", unlike), ("prize=a", unlike), ("reward=no", "no column 'no'")):
        with pytest.raises(AuditError, match=message):
            audit(verl, columns=[words])
    with pytest.raises(AuditError, match="'step' is given twice"):
        audit(trl, columns=["step=a", "step=b"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_random_damage_raises_nothing_else(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    path = write(as_verl(TABLE) if kind != "csv" else TABLE, tmp_path / f"a.{kind}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "remove", "insert"])):
            case "change":
                content[place] = data.draw(st.integers(0, 255))
            case "remove":
                del content[place : place + data.draw(st.integers(1, 200))]
            case _:
                content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        if not content:
            break
    path.write_bytes(bytes(content))
    with contextlib.suppress(AuditError):  # it may also have hit what the audit does not look at
        audit(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["jsonl", "parquet"]))
def test_no_truncation_passes_unseen(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    path = write(as_verl(TABLE), tmp_path / f"a.{kind}")
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content) - 2))
    path.write_bytes(content[:cut])
    if kind == "jsonl" and (cut == 0 or content[cut - 1 : cut] == b"\n" or content[cut : cut + 1] == b"\n"):
        return  # between two lines
    with pytest.raises(AuditError, match="line [0-9]+: not JSON" if kind == "jsonl" else "cut off|lacks|NUL|empty"):
        audit(path)
