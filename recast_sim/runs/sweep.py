"""Grids of jobs on local processes or on Ray. A job's result is one JSON file, so a sweep that was killed goes on where it was.

Each job is seeded by its own arguments: neither the engine nor the number of workers changes a number.
"""

import importlib.util
import multiprocessing
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal

from recast_sim.bounded import read_json_file
from recast_sim.errors import RecastError
from recast_sim.plugins import Plugin, for_workers, load_in_worker
from recast_sim.runs import RunError, write_json, write_text

Engine = Literal["local", "ray"]
Report = Callable[[str, int, int], None]


_KILLED = (
    "workers: one was killed, most likely for want of memory; the results so far are kept: "
    "go on with --resume, and with fewer --workers"
)


class SweepError(RecastError):
    """An engine that is not there, no workers, or one that was killed."""


@dataclass(frozen=True)
class Job:
    """One call `function(*arguments)` that returns a JSON-ready mapping; `names` say which, and name its file."""

    names: tuple[object, ...]
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]

    @property
    def file_name(self) -> str:
        text = "-".join(map(str, self.names))
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', text)[:80]}-{blake2b(text.encode(), digest_size=5).hexdigest()}.json"


Submit = Callable[[str, Sequence[Job]], list[dict[str, Any]]]


@contextmanager
def open_sweep(folder: Path, engine: Engine, workers: int, report: Report = lambda *_: None) -> Iterator[Submit]:
    """Yield `submit(label, jobs)`: it runs the jobs that have no result in `folder` yet and returns all results in order.

    Jobs of the same names are one job.

    Raises:
        SweepError: no workers, or Ray is asked for and not installed. A job's own error comes through, with a note that names
            the job; the results so far are kept. So they are where a worker was killed, which is a SweepError too.
    """
    if workers < 1:
        raise SweepError(f"workers: {workers} must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    with (_ray_pool if engine == "ray" else _local_pool)(workers) as run_all:

        def submit(label: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
            files = [folder / job.file_name for job in jobs]
            missing = {file: job for job, file in zip(jobs, files, strict=True) if not file.exists()}
            total = len(set(files))
            report(label, done := total - len(missing), total)
            plugins = for_workers(folder, write_text)
            calls = [partial(_run_job, pickle.dumps(job), file, plugins) for file, job in missing.items()]
            for _ in run_all(calls):
                report(label, done := done + 1, total)
            return [_result(file) for file in files]

        yield submit


def _result(file: Path) -> dict[str, Any]:
    try:
        found = read_json_file(file, RunError)
    except (OSError, RunError) as error:
        raise RunError(f"{error}; delete {file}, then --resume makes it anew") from error
    if not isinstance(found, dict):
        raise RunError(f"{file}: holds no JSON object; delete it, then --resume makes it anew")
    return found


RunAll = Callable[[Sequence[Callable[[], None]]], Iterator[None]]


@contextmanager
def _local_pool(workers: int) -> Iterator[RunAll]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_die_with_the_parent) as pool:

        def run_all(calls: Sequence[Callable[[], None]]) -> Iterator[None]:
            futures = [pool.submit(call) for call in calls]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise SweepError(_KILLED) from error
            finally:
                for future in futures:
                    future.cancel()

        yield run_all


def _die_with_the_parent() -> None:
    """Workers of a sweep that was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # an initializer runs in a child

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _ray_pool(workers: int) -> Iterator[RunAll]:
    if importlib.util.find_spec("ray") is None:
        raise SweepError("engine: 'ray' is not installed; pip install 'recast-rl[sweep]', or take --engine local")
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    started = not ray.is_initialized()  # a cluster that the caller is connected to is used, and left running
    if started:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    task: Any = ray.remote(num_cpus=1, max_retries=0)
    remote = task(lambda call: call())

    def run_all(calls: Sequence[Callable[[], None]]) -> Iterator[None]:
        waiting = [remote.remote(call) for call in calls]
        while waiting:
            ready, waiting = ray.wait(waiting)
            try:
                yield ray.get(ready[0])
            except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
                raise SweepError(_KILLED) from error

    try:
        yield run_all
    finally:
        if started:
            ray.shutdown()


def _run_job(packed: bytes, file: Path, plugins: Sequence[Plugin]) -> None:
    """Run a job; it is unpacked behind the plug-ins, whose constructors it may hold."""
    import torch

    torch.set_num_threads(1)  # tensors this small only lose by more
    load_in_worker(plugins)
    job: Job = pickle.loads(packed)
    try:
        write_json(file, job.function(*job.arguments))
    except Exception as error:
        error.add_note(f"in job {' '.join(map(str, job.names))}; the results of other jobs are kept in {file.parent}")
        raise
