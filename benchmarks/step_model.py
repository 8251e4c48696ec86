"""Constants of the model of a training step, fitted to steps of small models, and its error on sizes that were not fitted.

    python benchmarks/step_model.py --out benchmarks/results/steps-cpu.json    # measure
    python benchmarks/step_model.py --read benchmarks/results/steps-cpu.json   # what a file says

grpo and recast with G rows and two, KL and two optimiser steps, on one thread in fp32; seconds are CPU time, which is fairer
than a clock on a machine that others use, and the least of several rounds in which all cells take their turn. The machine's own
peaks (a large matrix product, a copy) are measured between the cells. Collectives are timed over two gloo processes by the
clock. Written are the measurements, the constants and the machine's name; nothing is fitted to a held-out cell.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness import KEPT_MEMORY, machine, table_text
from step_cells import CELLS, collectives, step_rows

from recast_sim.runs.atomic import write_text
from recast_train.engine import Engine, EngineConfig
from recast_train.step_model.fitting import by_flops_alone, fit, fit_link, median, ratios, worst
from recast_train.step_model.machine import measured_peaks
from recast_train.step_model.step_work import PHASES

ROUNDS, REPEATS = 3, 30


def measure() -> dict[str, Any]:
    """Timed steps, peaks and collectives."""
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # what the trainer's own clocks read
    least: dict[tuple[Any, str], dict[str, Any]] = {}
    peaks = []
    with Engine(EngineConfig()) as engine:
        for number in range(ROUNDS):
            for cell in CELLS:
                peaks.append(measured_peaks(time.process_time, 1))
                for row in step_rows(engine, cell, 1):
                    before = least.setdefault((cell, row["method"]), row)["seconds"]
                    least[cell, row["method"]]["seconds"] = {part: min(before[part], row["seconds"][part]) for part in PHASES}
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    flops, bandwidth = (max(column) for column in zip(*peaks, strict=True))
    measured = {
        "steps": list(least.values()),
        "collectives": collectives(REPEATS),
        "peaks": {"flops": flops, "bytes": bandwidth},
    }
    return {"machine": machine(), **measured}


def fitted(found: dict[str, Any]) -> dict[str, float]:
    """Constants of the fitted cells, the first two as shares of the machine's peaks."""
    flop, byte, call, one_pass = fit([row for row in found["steps"] if row["fitted"]])
    link, latency = fit_link(found["collectives"])
    peaks = {"flops_share": 1 / flop / found["peaks"]["flops"], "bandwidth_share": 1 / byte / found["peaks"]["bytes"]}
    return {name: float(value) for name, value in peaks.items()} | {
        "call": float(call),
        "one_pass": float(one_pass),
        "link": link,
        "latency": latency,
    }


def errors(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a phase: the median and the worst factor between model and measurement, on fitted and on held-out cells; then of
    the whole step, of grpo's over recast's, and of the whole where nothing but FLOPs takes time."""
    rows = {kept: [row for row in found["steps"] if row["fitted"] is kept] for kept in (True, False)}
    constants = fit(rows[True])
    of = {kept: ratios(some, constants) for kept, some in rows.items()}
    for kept, some in rows.items():
        of[kept]["step by FLOPs alone"] = by_flops_alone(rows[True], some)
    return [
        {
            "phase": phase,
            "fitted, median": median(of[True][phase]),
            "fitted, worst": worst(of[True][phase]),
            "held out, median": median(of[False][phase]),
            "held out, worst": worst(of[False][phase]),
        }
        for phase in of[True]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file of measurements and constants")
    parser.add_argument("--read", type=Path, help="a file of --out; nothing is measured")
    options = parser.parse_args()
    if not options.read and not KEPT_MEMORY.keys() <= os.environ.keys():  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEPT_MEMORY)
    found = json.loads(options.read.read_text()) if options.read else measure()
    found["constants"] = fitted(found)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps(found) + "\n")
    print(table_text(errors(found)), table_text([found["constants"]]), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
