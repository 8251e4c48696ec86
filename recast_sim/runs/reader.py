"""Reading run folders, whole or killed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recast_sim.runs.atomic import RunError

SCHEMA_VERSION = 1
TABLES = ("steps", "evals")


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


def read_run(path: Path) -> Run:
    """Read a run folder; one that was killed is read up to its last whole row.

    Raises:
        RunError: no manifest, an unknown schema version, or a damaged file.
    """
    manifest = read_manifest(path)
    groups = [_parquet(file) for file in sorted(path.glob("groups-*.parquet"))]
    return Run(path, manifest, _table(path, "steps"), _table(path, "evals"), pl.concat(groups) if groups else pl.DataFrame())


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
    """The manifest of a run folder. Raises RunError where it is missing, damaged or of another schema version."""
    file = path / "manifest.json"
    if not file.exists():
        raise RunError(f"{path}: not a run folder, manifest.json is missing")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(f"{file}: not JSON at line {error.lineno}: {error.msg}; start a new run") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(f"{file}: schema_version {version} is not {SCHEMA_VERSION}; read it with the release that wrote it")
    return manifest


def read_jsonl(path: Path) -> pl.DataFrame:
    """Rows of a line file; a last line that a kill cut short is left out.

    Raises:
        RunError: a damaged line anywhere else, with its number.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise RunError(f"{path}: line {number} is not JSON: {error.msg}") from error
    return pl.DataFrame(rows, infer_schema_length=None)


def _table(path: Path, name: str) -> pl.DataFrame:
    lines, closed = path / f"{name}.jsonl", path / f"{name}.parquet"
    if lines.exists():
        return read_jsonl(lines)
    return _parquet(closed) if closed.exists() else pl.DataFrame()


def _parquet(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise RunError(f"{file}: not a readable parquet file: {str(error).splitlines()[0]}") from error
