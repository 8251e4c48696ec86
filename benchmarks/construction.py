"""Cost of recast's whole signal construction, validation included, against the per-group Python loop of tests/signal_oracle.

    python benchmarks/construction.py [--groups 1024] [--json]

The loop reads the same tensors row by row, as verl's advantage loops do; beside it stands the same loop on nested Python
lists (the conversion counted), which nobody's trainer holds but which is the fastest a plain loop gets. Both see the same
batch, alternate in one process, and must name the same rows. Exits 1 where the ratio misses the target.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the loop is the tests' oracle

import torch
from signal_oracle import recast_loop  # pyright: ignore[reportMissingImports]

from recast_sim.signal import construct

HIT_RATE = 0.0054
SCORES = (0.0, 0.01, 0.1)


def make_batch(groups: int, group_size: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Rewards and scores (P, G), all rows valid, an anchor for every prompt."""
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(groups, group_size, generator=generator) < HIT_RATE).float()
    scores = torch.tensor(SCORES)[torch.randint(len(SCORES), rewards.shape, generator=generator)]
    return rewards, scores, torch.ones_like(rewards, dtype=torch.bool), torch.ones(groups, dtype=torch.bool)


def medians_ms(ways: dict[str, Callable[[], list[int]]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each way, interleaved, after one unmeasured round that checks that their rows agree."""
    rows = {name: way() for name, way in ways.items()}
    if len({tuple(r) for r in rows.values()}) != 1:
        raise SystemExit("the ways disagree about the kept rows")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(groups: int, group_size: int, repeats: int, target: float, seed: int = 0) -> dict[str, object]:
    """The result as the JSON object that `--json` prints."""
    rewards, scores, valid, anchors = batch = make_batch(groups, group_size, seed)
    medians = medians_ms(
        {
            "oracle": lambda: recast_loop(*batch)[1],
            "list_oracle": lambda: recast_loop(*(table.tolist() for table in batch))[1],
            "construct": lambda: construct(
                "recast", rewards, scores, valid_PG=valid, has_anchor_P=anchors
            ).plan.rows_N.tolist(),
        },
        repeats,
    )
    ratio = medians["oracle"] / medians["construct"]
    return {
        "groups": groups,
        "group_size": group_size,
        "oracle_ms": medians["oracle"],
        "list_oracle_ms": medians["list_oracle"],
        "construct_ms": medians["construct"],
        "ratio": ratio,
        "list_ratio": medians["list_oracle"] / medians["construct"],
        "target": target,
        "met": ratio >= target,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the result; 0 where the target is met, else 1."""
    parser = argparse.ArgumentParser(description="recast's signal construction against a per-group Python loop")
    parser.add_argument("--groups", type=int, default=1024)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds; medians are over them")
    parser.add_argument("--target", type=float, default=50.0, help="least ratio of loop time to construct time")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more only add waiting to operations this small")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = measure(options.groups, options.group_size, options.repeats, options.target)
    if options.json:
        print(json.dumps(result))
        return 0 if result["met"] else 1
    shape = f"{options.groups} groups of {options.group_size}, {options.threads} torch thread(s)"
    print(f"recast, {shape}, medians of {options.repeats} interleaved rounds")
    print(f"  Python loop on tensors  {result['oracle_ms']:9.2f} ms  {result['ratio']:7.1f}x")
    print(f"  Python loop on lists    {result['list_oracle_ms']:9.2f} ms  {result['list_ratio']:7.1f}x")
    print(f"  construct               {result['construct_ms']:9.2f} ms")
    print(f"target: {options.target:g}x the loop on tensors: {'met' if result['met'] else 'missed'}")
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
