"""What all benchmarks share: contenders that alternate in one process, entries held against targets, one JSON form.

A benchmark is a script with a function `measure(quick) -> Result` that ends in `sys.exit(main(measure, __doc__))`. Only ratios
of contenders that ran side by side mean anything on a shared machine; an entry with a target is one wherever it can be.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "polars", "transformers", "trl", "verl")
SETTINGS = (
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "LD_PRELOAD",
)

KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000"}  # glibc keeps what a process frees
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # a table of 64 KiB and more has pages of its own, which go when it goes


@dataclass(frozen=True)
class Entry:
    """One figure of a benchmark. With a target, `at_least` says on which side of it the figure must lie."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Result:
    """Entries, the table they were read from (one mapping a row, the same keys in each), and what was set."""

    entries: list[Entry]
    table: Sequence[Mapping[str, Any]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return {
            "entries": [entry.json() for entry in self.entries],
            "table": [dict(row) for row in self.table],
            "settings": dict(self.settings),
            "notes": self.notes,
            "machine": machine(),
        }


Clock = Callable[[], float]


def interleaved(ways: Mapping[str, Callable[[], object]], repeats: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Median seconds of each way over rounds in which all take their turn.

    A clocked call follows an unclocked one of its own: else it pays, in page faults, for the memory that the way before it let
    go. Of ways on one thread `time.thread_time` is the fairer clock: a busy machine interrupts the long ones alone.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            way()
            times[name].append(timed(way, clock))
    return {name: statistics.median(values) for name, values in times.items()}


def timed(way: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Seconds of one call."""
    start = clock()
    way()
    return clock() - start


def memory(name: str) -> int:
    """A figure of /proc/self/status in bytes ("VmRSS", "VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def restart_peak() -> int:
    """Resident bytes now; "VmHWM" starts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def machine() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "threads": _threads(),
        "environment": {name: os.environ.get(name) for name in SETTINGS},
    }


@dataclass(frozen=True)
class Spent:
    """What a command and the processes that it started took: seconds from start to end, seconds of processor, bytes at the peak
    of the largest of them; and what it printed."""

    seconds: float
    processor: float
    peak: int
    printed: str


def spent(*command: str | Path) -> Spent:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{Path(command[0]).name}: {(errors.read().strip().splitlines() or ['?'])[-1]}")
        return Spent(seconds, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss, out.read())


def installed(command: str) -> Path:
    """A command of the environment that runs this."""
    return Path(sys.executable).with_name(command)


def own_process(script: str, *arguments: str, own_pages: bool = False) -> Any:
    """The JSON object that a benchmark script prints for these arguments, from a process of its own.

    With `own_pages` the process holds what its tables hold and no more, whatever this one does: for peaks.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    env = dict(os.environ)
    if own_pages:
        env = {name: value for name, value in env.items() if name not in KEPT_MEMORY} | OWN_PAGES
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{Path(script).name} {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table, numbers to four digits."""
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(result: Mapping[str, Any]) -> str:
    """A result's JSON object as Markdown: its table, then each entry with its target."""
    parts = [table_text(result["table"]), table_text([entry_row(entry) for entry in result["entries"]]), *result["notes"]]
    return "\n\n".join(part for part in parts if part)


def entry_row(entry: Mapping[str, Any]) -> dict[str, str]:
    """An entry's JSON object as a row of a table."""
    return {
        "entry": entry["name"],
        "value": f"{_cell(entry['value'])} {entry['unit']}".strip(),
        "target": "" if entry["target"] is None else f"{'>=' if entry['at_least'] else '<='} {entry['target']:g}",
        "met": {None: "", True: "yes", False: "**no**"}[entry["met"]],
    }


def main(measure: Callable[[bool], Result], about: str | None, arguments: list[str] | None = None) -> int:
    """Run one benchmark from the command line; 0 where every target is met, else 1."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    result = measure(options.quick).json()
    print(json.dumps(result) if options.json else report(result))
    return 0 if all(entry["met"] is not False for entry in result["entries"]) else 1


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
