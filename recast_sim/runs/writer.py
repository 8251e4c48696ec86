"""Writing a run folder so that a kill at any moment loses nothing that was written."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import polars as pl

from recast_sim.runs.atomic import atomic_directory, atomic_file, full_disk, remove_leftovers, write_json
from recast_sim.runs.provenance import provenance
from recast_sim.runs.reader import SCHEMA_VERSION, TABLES, RunError, read_jsonl, read_manifest


class RunWriter:
    """One run folder, open for writing. Use `RunWriter.create` or `RunWriter.resume`, then `close`.

    Rows are flushed as they come. Every step row has the same columns as the first (RunError otherwise), so that the table
    never changes its schema half-way.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._columns: dict[str, tuple[str, ...]] = {}
        self._files: dict[str, FileIO] = {}
        self._groups: list[pl.DataFrame] = []
        self._last_step = 0

    @classmethod
    def create(cls, path: Path, kind: str, config: Mapping[str, Any], seed: int) -> "RunWriter":
        """Start a new run. Raises RunError where the folder holds a run already."""
        if (path / "manifest.json").exists():
            raise RunError(f"{path}: holds a run already; choose another folder or resume it")
        path.mkdir(parents=True, exist_ok=True)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "status": "running",
            "seed": seed,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": dict(config),
            **provenance(),
        }
        write_json(path / "manifest.json", manifest)
        return cls(path, manifest)

    @classmethod
    def resume(cls, path: Path, config: Mapping[str, Any], seed: int) -> "RunWriter":
        """Reopen a run that was killed, at its last checkpoint: later rows are dropped and will be written again.

        Raises:
            RunError: no run there, it is complete, or config or seed differ (the message names the first differing key).
        """
        manifest = read_manifest(path)
        if manifest["status"] == "complete":
            raise RunError(f"{path}: the run is complete, there is nothing to resume")
        same_config(path, manifest, config, seed)
        writer = cls(path, manifest)
        writer._rewind(latest_step(path))
        return writer

    @classmethod
    def open(cls, path: Path, kind: str, config: Mapping[str, Any], seed: int, resume: bool) -> "RunWriter":
        """A new run folder, or with `resume` the one that is there."""
        if resume and (path / "manifest.json").exists():
            return cls.resume(path, config, seed)
        return cls.create(path, kind, config, seed)

    def step(self, row: Mapping[str, Any]) -> None:
        """Append a row to the steps; it must hold `step`."""
        self._last_step = int(row["step"])
        self._append("steps", row)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Append a row to the evaluations; it must hold `step`."""
        self._append("evals", row)

    def groups(self, columns: Mapping[str, Any]) -> None:
        """Keep one row a group (columns of equal length, `step` among them) until the next checkpoint or close."""
        self._groups.append(pl.DataFrame(dict(columns)))

    @contextmanager
    def checkpoint(self, step: int) -> Iterator[Path]:
        """Yield a folder to fill; it becomes `checkpoints/step-NNNNNNNN` when whole, and older ones are removed."""
        self._flush_groups(step)
        folder = self.path / "checkpoints"
        with atomic_directory(folder / f"step-{step:08d}") as temporary:
            yield temporary
        for other in folder.glob("step-*"):
            if other.name != f"step-{step:08d}":
                shutil.rmtree(other)

    def close(self, status: str = "complete", summary: Mapping[str, Any] | None = None) -> None:
        """Turn the line files into parquet and set the status; `summary` goes into the manifest."""
        self._flush_groups(self._last_step)
        for table in TABLES:
            if table in self._files:
                self._files.pop(table).close()
            lines = self.path / f"{table}.jsonl"
            if lines.exists():
                with atomic_file(self.path / f"{table}.parquet") as temporary:
                    read_jsonl(lines).write_parquet(temporary)
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.manifest |= {"status": status, "finished": finished, "summary": dict(summary or {})}
        write_json(self.path / "manifest.json", self.manifest)
        for table in TABLES:  # last, so that a kill in between leaves a run that resumes or reads whole
            (self.path / f"{table}.jsonl").unlink(missing_ok=True)

    def _append(self, table: str, row: Mapping[str, Any]) -> None:
        columns = self._columns.setdefault(table, tuple(row))
        if columns != tuple(row):
            raise RunError(f"{self.path}: {table} row has columns {tuple(row)}, expected {columns}")
        line = (json.dumps(dict(row), allow_nan=False) + "\n").encode()
        file = self.path / f"{table}.jsonl"
        with full_disk(file):
            if table not in self._files:  # without a buffer, which would hold what a full disk refused
                self._files[table] = open(file, "ab", buffering=0)  # noqa: SIM115
            while line:
                line = line[self._files[table].write(line) :]

    def _flush_groups(self, step: int) -> None:
        if self._groups:
            with atomic_file(self.path / f"groups-{step:08d}.parquet") as temporary:
                pl.concat(self._groups).write_parquet(temporary)
            self._groups = []

    def _rewind(self, step: int) -> None:
        for folder in (self.path, self.path / "checkpoints"):
            remove_leftovers(folder)
        for table in TABLES:
            lines = self.path / f"{table}.jsonl"
            if lines.exists():
                rows = lines.read_text(encoding="utf-8").splitlines()
                kept = [row for row in rows if step and _up_to(row, step)]  # without a checkpoint the run starts anew
                with atomic_file(lines) as temporary:
                    temporary.write_text("".join(row + "\n" for row in kept), encoding="utf-8")
        for file in self.path.glob("groups-*.parquet"):
            if int(file.stem.split("-")[1]) > step:
                file.unlink()
        self._last_step = step


def same_config(path: Path, manifest: Mapping[str, Any], config: Mapping[str, Any], seed: int) -> None:
    """Raises RunError, naming the first key that differs, unless a run has this config and seed."""
    _same(path, manifest["seed"], seed, "seed")
    _same(path, manifest["config"], json.loads(json.dumps(dict(config), default=str)))


def latest_step(path: Path) -> int:
    """Step of the newest whole checkpoint of a run folder, 0 where there is none."""
    return max((int(folder.name.split("-")[1]) for folder in (path / "checkpoints").glob("step-*")), default=0)


def _up_to(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except json.JSONDecodeError:  # the line that a kill cut short
        return False


def _same(path: Path, old: Any, new: Any, at: str = "") -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            _same(path, old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        raise RunError(f"{path}: config {at!r} was {old!r} and is now {new!r}; resume with the old value or start a new run")
