"""Writing a run folder so that a kill at any moment loses nothing that was written."""

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import polars as pl

from recast_sim.bounded import json_value, read_bounded, read_json_file
from recast_sim.runs.atomic import atomic_directory, atomic_file, full_disk, remove_leftovers, write_json
from recast_sim.runs.folder_lock import FolderLock, lock_folder
from recast_sim.runs.provenance import provenance
from recast_sim.runs.reader import ROWS_BYTES, SCHEMA_VERSION, TABLES, RunError, read_jsonl, read_manifest

_COUNTED = "rows.json"  # of a checkpoint
_RESULTS = ("results.json", "gradients.json")
_REMADE = ("real-study",)  # kinds whose evals.parquet is made of other files


class RunWriter:
    """One run folder, open for writing. Use `RunWriter.create` or `RunWriter.resume`, then `close`.

    Rows are flushed as they come. Every step row has the same columns as the first (RunError otherwise), so that the table
    never changes its schema half-way. A writer is its folder's only one (`lock_folder`) until it is closed, or its process
    ends.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], lock: FolderLock) -> None:
        self.path = path
        self._lock = lock
        self._rows: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.manifest = manifest
        self._columns: dict[str, tuple[str, ...]] = {}
        self._files: dict[str, FileIO] = {}
        self._groups: list[pl.DataFrame] = []
        self._last_step = 0

    @classmethod
    def create(cls, path: Path, kind: str, config: Mapping[str, Any], seed: int) -> "RunWriter":
        """Start a new run. Raises RunError where the folder holds a run already, or another process writes there."""
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(path)
        if (path / "manifest.json").exists():
            raise RunError(f"{path}: holds a run already; choose another folder or resume it")
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
        return cls(path, manifest, lock)

    @classmethod
    def resume(cls, path: Path, config: Mapping[str, Any], seed: int) -> "RunWriter":
        """Reopen a run that was killed, at its last checkpoint: later rows are dropped and will be written again.

        A complete one is reopened where tables that can be made again are gone.

        Raises:
            RunError: no run there, it is complete, another process writes it, rows are gone, or config or seed differ (the
                message names the first differing key).
        """
        read_manifest(path)
        lock = lock_folder(path)
        manifest = read_manifest(path)  # as the last writer left it
        if manifest["status"] == "complete" and not lost_tables(path, manifest):
            raise RunError(f"{path}: the run is complete, there is nothing to resume")
        same_config(path, manifest, config, seed)
        _same_plugins(path, manifest)
        writer = cls(path, manifest | {"status": "running"}, lock)
        writer._rewind(latest_step(path))
        return writer

    @classmethod
    def open(cls, path: Path, kind: str, config: Mapping[str, Any], seed: int, resume: bool) -> "RunWriter":
        """A new run folder, or with `resume` the one that is there. Raises RunError where it is not."""
        if resume:
            must_exist(path)
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
            write_json(temporary / _COUNTED, {**self._rows, "groups": len(list(self.path.glob("groups-*.parquet")))})
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
        self.manifest |= {
            "status": status,
            "finished": finished,
            "summary": dict(summary or {}),
            "tables": own_tables(self.path),
        }
        write_json(self.path / "manifest.json", self.manifest)
        for table in TABLES:  # last, so that a kill in between leaves a run that resumes or reads whole
            (self.path / f"{table}.jsonl").unlink(missing_ok=True)
        self._lock.release()

    def _append(self, table: str, row: Mapping[str, Any]) -> None:
        columns = self._columns.setdefault(table, tuple(row))
        if columns != tuple(row):
            raise RunError(f"{self.path}: {table} row has columns {tuple(row)}, expected {columns}")
        file = self.path / f"{table}.jsonl"
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise RunError(f"{file}: {name} is {value} in step {row.get('step')}, which is no JSON; lower learning_rate")
        line = (json.dumps(dict(row), allow_nan=False) + "\n").encode()
        with full_disk(file):
            if table not in self._files:  # without a buffer, which would hold what a full disk refused
                self._files[table] = open(file, "ab", buffering=0)  # noqa: SIM115
            while line:
                line = line[self._files[table].write(line) :]
        self._rows[table] += 1

    def _flush_groups(self, step: int) -> None:
        if self._groups:
            with atomic_file(self.path / f"groups-{step:08d}.parquet") as temporary:
                pl.concat(self._groups).write_parquet(temporary)
            self._groups = []

    def _rewind(self, step: int) -> None:
        for folder in (self.path, self.path / "checkpoints"):
            remove_leftovers(folder)
        kept = {table: _rows_up_to(self.path / f"{table}.jsonl", step) for table in TABLES}
        groups = {file: _number(file) for file in self.path.glob("groups-*.parquet")}
        found = {table: len(rows or ()) for table, rows in kept.items()}
        self._check_counts(step, {**found, "groups": sum(number <= step for number in groups.values())})
        for table, rows in kept.items():
            if rows is not None:
                with atomic_file(self.path / f"{table}.jsonl") as temporary:
                    temporary.write_bytes(b"".join(row + b"\n" for row in rows))
        for file, number in groups.items():
            if number > step:
                file.unlink()
        self._rows, self._last_step = found, step

    def _check_counts(self, step: int, found: Mapping[str, int]) -> None:
        """Rows that a checkpoint has counted and that are gone would be missing from a run that says that it is complete."""
        counted = self.path / "checkpoints" / f"step-{step:08d}" / _COUNTED
        known = read_json_file(counted, RunError) if counted.exists() else {}  # older versions did not count
        for name, number in found.items():
            wanted = known.get(name, 0) if isinstance(known, dict) else None
            if not isinstance(wanted, int) or number < wanted:
                raise RunError(
                    f"{self.path}: holds {number} of the {wanted} {name} that its checkpoint has counted; they were deleted: "
                    f"delete {self.path} and run it anew"
                )


def must_exist(path: Path) -> None:
    """Raises RunError unless there is a folder to resume."""
    if not path.is_dir():
        raise RunError(f"{path}: there is no such folder to resume; give the run's --out, or leave --resume out to start one")


def own_tables(path: Path) -> list[str]:
    """The files that hold a run's results, relative to its folder; those of runs below it are theirs."""
    found = [*path.rglob("*.parquet"), *(path / name for name in _RESULTS if (path / name).exists())]
    below = {manifest.parent for manifest in path.rglob("manifest.json")} - {path}
    return sorted(str(file.relative_to(path)) for file in found if not below.intersection(file.parents))


def lost_tables(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Results that a complete run had and that are gone, all of which can be made again.

    Raises:
        RunError: its own rows are gone, which cannot.
    """
    lost = [name for name in manifest.get("tables", ()) if not (path / name).exists()]
    for name in lost:
        if name.startswith((*TABLES, "groups-")) and manifest["kind"] not in _REMADE:
            raise RunError(f"{path / name}: the run was complete and this file is gone; delete {path} and run it anew")
    return lost


def same_config(path: Path, manifest: Mapping[str, Any], config: Mapping[str, Any], seed: int) -> None:
    """Raises RunError, naming the first key that differs, unless a run has this config and seed."""
    _same(path, manifest["seed"], seed, "seed")
    _same(path, manifest["config"], json.loads(json.dumps(dict(config), default=str)))


def _same_plugins(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raises RunError where a plug-in of the run is another now, or is not loaded."""
    now = {plugin["sha256"] for plugin in provenance().get("plugins", ())}
    for plugin in manifest.get("plugins", ()):
        if plugin["sha256"] not in now:
            mend = "load it as it was (the manifest has its source) or start a new run"
            raise RunError(f"{path}: plug-in {plugin['name']} is not loaded, or has changed since the run began; {mend}")


def latest_step(path: Path) -> int:
    """Step of the newest whole checkpoint of a run folder, 0 where there is none."""
    return max((_number(folder) for folder in (path / "checkpoints").glob("step-*")), default=0)


def _number(file: Path) -> int:
    """The step in the name of a checkpoint or of a file of groups. Raises RunError where it holds none."""
    found = re.fullmatch(r"(step|groups)-(\d{8,12})", file.name.removesuffix(".parquet"))
    if found is None:
        raise RunError(f"{file}: its name holds no step, so no run wrote it; remove it")
    return int(found[2])


def _rows_up_to(file: Path, step: int) -> list[bytes] | None:
    """Whole lines up to a step, none without a checkpoint, since the run then starts anew; None where there is no file."""
    if not file.exists():
        return None
    return [line for line in read_bounded(file, ROWS_BYTES, RunError).split(b"\n") if step and _up_to(file, line, step)]


def _up_to(file: Path, line: bytes, step: int) -> bool:
    try:
        row = json_value(line, file, RunError)
    except RunError:  # the line that a kill cut short
        return False
    at = row.get("step") if isinstance(row, dict) else None
    return isinstance(at, int) and at <= step


def _same(path: Path, old: Any, new: Any, at: str = "") -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            _same(path, old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        raise RunError(f"{path}: config {at!r} was {old!r} and is now {new!r}; resume with the old value or start a new run")
