"""Reading run folders, whole or killed. A folder may come from anywhere: whatever it holds, the fault is a RunError."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic import BaseModel, ConfigDict, ValidationError

from recast_sim.bounded import MEGABYTE, json_value, read_bounded, read_json_file
from recast_sim.runs.atomic import RunError
from recast_sim.runs.table_files import read_table

SCHEMA_VERSION = 1
TABLES = ("steps", "evals")
ROWS_BYTES = 2048 * MEGABYTE  # of steps.jsonl or evals.jsonl
_FAULTS = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RuntimeWarning, TypeError, ValueError),
    *(PolarsError, PanicException, RecursionError, StopIteration),
)


class _Git(BaseModel):
    model_config = ConfigDict(strict=True)

    commit: str
    diff: str


class _Manifest(BaseModel):
    """What every reader may rely on; other keys are free."""

    model_config = ConfigDict(strict=True)

    kind: str
    status: str
    seed: int
    config: dict[str, Any]
    command: str = ""
    started: str = ""
    finished: str = ""
    git: _Git | None = None
    versions: dict[str, str] = {}
    hardware: dict[str, str | int | None] = {}
    summary: dict[str, Any] = {}
    tables: list[str] = []


@dataclass(frozen=True)
class Run:
    """A run folder in memory. `evals` and `groups` are empty frames where the run wrote none."""

    path: Path
    manifest: dict[str, Any]
    steps: pl.DataFrame
    evals: pl.DataFrame
    groups: pl.DataFrame

    @property
    def status(self) -> str:
        return str(self.manifest["status"])


@contextmanager
def fits_its_kind(path: Path) -> Iterator[None]:
    """Around code that takes a run folder's content for what its kind holds: where it holds something else, RunError.

    So it is where numpy would warn and go on: a mean of nothing is no figure.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
    except RunError:
        raise
    except _FAULTS as fault:
        said = (str(fault).splitlines() or [""])[0][:200]
        raise RunError(
            f"{path}: does not hold what a run of its kind holds ({type(fault).__name__}: {said}); "
            "it was changed, or another version wrote it: run it again"
        ) from fault


def read_run(path: Path) -> Run:
    """Read a run folder; one that was killed is read up to its last whole row.

    Raises:
        RunError: no manifest, an unknown schema version, or a damaged file.
    """
    manifest = read_manifest(path)
    groups = [read_table(file, RunError) for file in sorted(path.glob("groups-*.parquet"))]
    with fits_its_kind(path):
        joined = pl.concat(groups) if groups else pl.DataFrame()
    return Run(path, manifest, _table(path, "steps"), _table(path, "evals"), joined)


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders at or below the given paths, sorted. Raises RunError for a path without any."""
    found = []
    for path in paths:
        runs = sorted(manifest.parent for manifest in path.rglob("manifest.json"))
        if not runs:
            raise RunError(f"{path}: no run folder here or below (a run folder holds manifest.json)")
        found += runs
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder. Raises RunError where it is missing, damaged, of another form or schema version."""
    file = path / "manifest.json"
    try:
        manifest = read_json_file(file, RunError)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path}: not a run folder, manifest.json is missing") from None
    except RunError as error:
        raise RunError(f"{error}; start a new run") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        shown = f"{version!r}"[:40]
        raise RunError(f"{file}: schema_version {shown} is not {SCHEMA_VERSION}; read it with the release that wrote it")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise RunError(f"{file}: key {'.'.join(map(str, fault['loc']))!r}: {fault['msg']}; start a new run") from None
    return manifest


def read_jsonl(path: Path) -> pl.DataFrame:
    """Rows of a line file; a last line that a kill cut short is left out.

    Raises:
        RunError: a damaged line anywhere else, with its number; a line that is no row.
    """
    *lines, rest = read_bounded(path, ROWS_BYTES, RunError).split(b"\n")
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    with contextlib.suppress(RunError):
        rows += [_row(path, len(lines) + 1, rest)] if rest else []
    with fits_its_kind(path):
        return pl.DataFrame(rows, infer_schema_length=None)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    row = json_value(line, path, RunError, number)
    if not isinstance(row, dict):
        raise RunError(f"{path}: line {number}: is no JSON object, so no row; start a new run")
    return row


def _table(path: Path, name: str) -> pl.DataFrame:
    lines, closed = path / f"{name}.jsonl", path / f"{name}.parquet"
    there = read_table(closed, RunError) if closed.exists() and not lines.exists() else pl.DataFrame()
    found = read_jsonl(lines) if lines.exists() else there
    if found.width and not found.schema.get("step", pl.String()).is_integer():
        raise RunError(f"{path}: the {name} have no column 'step' of whole numbers; start a new run")
    return found
