"""Mutations of configs and run folders, and the one thing that every command owes: a figure, or one line and exit 2."""

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from commands import Done, called
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ", "0"))  # of `make fuzz`; 0 is the short version
SECONDS = 120  # for one command, on a busy machine
TRIED: Counter[str] = Counter()
NUMBERS = (0, -1, 1, 2, 3, -0.5, 0.5, 1.5, 1e-300, 1e300, 1e9, -1e9, 10**12, 2**63, float("inf"), float("-inf"), float("nan"))
WORDS = ("", "40", "grpo", "recast", "[bold]x[/]", r"$\frac$", "\x1b[31mred", "a[b]*?", "x" * 5000, "\u202eback", "-1", "true")
NASTY = (*NUMBERS, *WORDS, True, False, None, [], {}, [1], ["grpo", "grpo"], [1.0], [0.85, 0.13, 0.02, 0, 0, 0], {"a": 1})


@contextlib.contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Fail where a command hangs."""

    def stop(number: int, frame: Any) -> None:
        raise AssertionError(f"a command took over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Throw away what is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def owed(main: Callable[[], None], *arguments: object) -> Done:
    """Call a command and hold it to what it owes."""
    with time_limit():
        done = called(main, *arguments)
    plt.close("all")
    assert done.returncode in (0, 2), (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("recast-")]
        assert len(lines) == 1, done.stderr
        assert ": error: " in lines[0]
        assert len(lines[0]) > 20
    else:
        assert done.stdout.strip() or Path(str(arguments[-1])).exists()
    for text in (done.stdout, done.stderr):
        assert "\x1b[31mred" not in text
    return done


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of a nested value, its inner ones too."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in paths_of(part, (*at, key)))]


@st.composite
def mutated(draw: st.DrawFn, value: Any, changes: int = 2) -> Any:
    """A nested value with some parts replaced, removed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, changes))):
        *path, key = draw(st.sampled_from(paths_of(value)[1:]))
        holder = value
        for part in path:
            holder = holder[part]
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add")))
        if how == "remove":
            del holder[key]
        elif how == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(("x", "seed", "", "a.b", "step")))] = copy.deepcopy(draw(st.sampled_from(NASTY)))
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))  # which a later change may go into
        if len(paths_of(value)) < 2:
            break
    return value


def toml(table: dict[str, Any]) -> str:
    """A table as TOML of one line a key; what TOML cannot hold (None) becomes an empty table."""
    return "".join(f"{json.dumps(key)} = {_toml_value(value)}\n" for key, value in table.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if value is None:
        return "{}"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    return json.dumps(value)


FOLDER_CHANGES = (
    *("json", "json", "json", "row", "column", "column type", "cell", "bytes", "cut", "empty", "remove"),
    *("pipe", "device", "folder", "deep", "not utf-8", "huge number", "surrogate", "link to itself", "rename"),
)


@st.composite
def broken_folder(draw: st.DrawFn, source: Path, target: Path) -> tuple[Path, str]:
    """A copy of a run folder with one or two things done to it; its place, and what was done."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    place, done = target / "run", []
    shutil.copytree(source, place)
    for _ in range(draw(st.integers(1, 2))):
        files = sorted(file for file in place.rglob("*") if file.is_file() and not file.is_symlink())
        manifest, how = place / "manifest.json", draw(st.sampled_from(FOLDER_CHANGES))
        file = draw(st.sampled_from(files)) if files else manifest
        if how == "rename":
            renamed = target / draw(st.sampled_from(("a[b]", "gl*", "~", "sp ace", r"$\frac$", "\x1b[31mred", "?", "x" * 200)))
            place = place.rename(renamed) if not renamed.exists() else place
        else:
            _change(draw, manifest if how == "json" else file, how)
        done.append(how)
    return place, " and ".join(done)


def _change(draw: st.DrawFn, file: Path, how: str) -> None:
    if not file.exists() or not file.is_file():
        return
    if file.suffix == ".parquet" and how in ("row", "column", "column type", "cell"):
        _change_table(draw, file, how)
    elif how in ("json", "row", "column", "column type", "cell") and file.suffix in (".json", ".jsonl"):
        _change_json(draw, file)
    elif how == "bytes":
        content = bytearray(file.read_bytes())
        for _ in range(draw(st.integers(1, 8))):
            if content:
                content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        file.write_bytes(bytes(content))
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: draw(st.integers(0, 200))])
    elif how in ("deep", "not utf-8", "huge number", "surrogate", "empty"):
        texts = {
            "deep": b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
            "not utf-8": b"\xff\xfe{}",
            "huge number": b'{"step": ' + b"9" * 5000 + b"}",
            "surrogate": b'{"step": 1, "a": "\\ud800"}\n',
            "empty": b"",
        }
        file.write_bytes(texts[how])
    else:
        file.unlink()
        if how == "pipe":
            os.mkfifo(file)
        elif how == "device":
            file.symlink_to("/dev/zero")
        elif how == "folder":
            file.mkdir()
        elif how == "link to itself":
            file.symlink_to(file)


def _change_json(draw: st.DrawFn, file: Path) -> None:
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    at = draw(st.integers(0, max(0, len(lines) - 1)))
    with contextlib.suppress(ValueError, IndexError, TypeError, RecursionError):
        lines[at] = json.dumps(draw(mutated(json.loads(lines[at]))))
    file.write_text("\n".join(lines) + "\n")


def _change_table(draw: st.DrawFn, file: Path, how: str) -> None:
    with contextlib.suppress(pl.exceptions.PolarsError):
        table = pl.read_parquet(file.absolute(), glob=False)
        if not table.width:
            return
        name = draw(st.sampled_from(table.columns))
        if how == "row":
            table = table.head(draw(st.integers(0, 1)))
        elif how == "column":
            table = table.drop(name)
        elif how == "column type":
            table = table.with_columns(pl.lit(draw(st.sampled_from(("text", None, 1.5, True)))).alias(name))
        else:
            worst = draw(st.sampled_from((None, float("nan"), float("inf"), -1, 1e300, 2**40, r"$\frac$", "[b]x[/]")))
            table = table.with_columns(pl.Series(name, [worst] * table.height, strict=False))
        table.write_parquet(file.absolute())


def tell_what_was_tried() -> None:
    """Counts by kind, for the end of `make fuzz`."""
    if EXAMPLES:
        total = sum(TRIED.values())
        print(
            "\n".join([f"\n{total} tried", *(f"{count:6} {kind}" for kind, count in sorted(TRIED.items()))]),
            file=sys.__stderr__,
        )


def tries(short: int) -> settings:
    """Hypothesis settings: EXAMPLES of them with own seeds, or the same `short` number in the tests."""
    return settings(
        max_examples=EXAMPLES or short,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
