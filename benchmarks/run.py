"""All benchmarks, each in a process of its own, into one JSON file and its tables, all targets first.

    python benchmarks/run.py [--quick] [--only construction ...] [--out benchmarks/results/cpu.json]

Results of benchmarks that are not run stay in the file. Targets that are missed are named at the end. Exits 1 where a
benchmark fails or takes longer than a quarter of an hour; the others run all the same.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import KEPT_MEMORY, entry_row, report, table_text

HERE = Path(__file__).resolve().parent
# two settings that move results 2 to 5 times: threads that wait must not spin, and freed memory stays with the process. Else
# page faults slow small operations, and double the time of the widest passes, which would flatter those that drop rows
SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE"}
OWN_MEMORY = ("simulator", "sweep_scaling", "verdict", "audit_size")  # peaks, and commands as a user runs them
BENCHMARKS = (
    "start_up",
    "construction",
    "structural",
    "decoding",
    "actor",
    "actor_share",
    "supervised",
    "step",
    "growth",
    "simulator",
    "sweep_scaling",
    "verdict",
    "audit_size",
)
LONGEST = 900  # seconds that one benchmark may take


def run(name: str, quick: bool) -> dict[str, Any] | None:
    """The result of one benchmark, None where it failed (its message is on the terminal) or took too long."""
    print(f"\n## {name}", flush=True)
    started = time.perf_counter()
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", *(["--quick"] if quick else [])]
    settings = SETTINGS | ({} if name in OWN_MEMORY else KEPT_MEMORY)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | settings, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=LONGEST)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # and what it started
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        print(f"{name} was stopped after {LONGEST} s")
        return None
    if not printed.strip():
        print(f"{name} failed with exit status {process.returncode}")
        return None
    result = json.loads(printed.splitlines()[-1])
    result["command"] = f"python benchmarks/run.py --only {name}{' --quick' if quick else ''}"
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(report(result), flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes: all of them in some six minutes")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--out", type=Path, help="JSON file; a Markdown table is written beside it")
    options = parser.parse_args()
    kept: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    failed, missed = [], []
    for name in options.only:
        result = run(name, options.quick)
        if result is None:
            failed.append(name)
            continue
        missed += [entry["name"] for entry in result["entries"] if entry["met"] is False]
        kept[name] = result
        if options.out:
            _write(options.out, {key: kept[key] for key in BENCHMARKS if key in kept})
    print("", *(f"target missed: {entry}" for entry in missed), *(f"benchmark failed: {name}" for name in failed), sep="\n")
    return 1 if failed else 0


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    parts = [
        f"## {name}\n\n`{result['command']}` ({result['seconds']:g} s)\n\n{report(result)}\n"
        for name, result in results.items()
    ]
    targets = [
        {"benchmark": name, **entry_row(entry)}
        for name, result in results.items()
        for entry in result["entries"]
        if entry["target"] is not None
    ]
    path.with_suffix(".md").write_text("\n".join([f"## Targets\n\n{table_text(targets)}\n", *parts]))


if __name__ == "__main__":
    sys.exit(main())
