"""Speed of the simulator: i.i.d. rollouts down a tree too large to enumerate, against torch.multinomial level by level.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/simulator.py [--prompts 4096] [--group-size 32] [--threads 2] [--json] [--quick]

Groups a second on a full 64 x 64 x 64 tree with a 32-dimensional linear policy, the ratio to torch.multinomial, the cost of a
group as prompts grow, a catalog of a million items, and the share of the learning signal. The contenders alternate in one
process and see the same prompts; figures are medians. The policy's tables are packed before the clock starts, as they are
while a policy stands still; packing, once after each change of the parameters, is printed beside. Two settings of the
surroundings move results 2 to 5 times, waiting OpenMP threads and glibc's thresholds: they are printed, never set. Exits 1
where a target is missed. `--quick` times nothing: it checks on a tiny tree that the contenders draw from the same distribution.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from recast_sim.catalog import Catalog, synthetic_codes
from recast_sim.policy import PolicyConfig, TreePolicy
from recast_sim.sampling import sample_iid
from recast_sim.signal import construct

SIZES, DIM = (64, 64, 64), 32
MILLION, MILLION_SIZES, MILLION_PROMPTS = 1_000_000, (128, 128, 128), 1024
FLAT_PROMPTS = (1024, 4096, 16384, 65536)
MULTINOMIAL_CHUNK = 64  # prompts; the fastest of 4, 16 and 64 for the multinomial version: more leave the cache
TARGETS = {  # name: (target, whether more is better)
    "groups_per_second": (60_000.0, True),
    "ratio_to_multinomial": (5.0, True),
    "flat_cost": (1.2, False),
    "catalog_seconds": (1.0, False),
}
SETTINGS = (
    "OMP_WAIT_POLICY",
    "OMP_NUM_THREADS",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "LD_PRELOAD",
)


def make_policy(catalog: Catalog, dim: int, generator: torch.Generator) -> TreePolicy:
    """A linear policy with random parameters: logits of about unit variance, so that no level is uniform."""
    policy = TreePolicy(catalog, dim, PolicyConfig(), generator)
    with torch.no_grad():
        for vectors, biases in zip(policy.vectors, policy.biases, strict=True):
            vectors.copy_(torch.randn(vectors.shape, generator=generator) / dim**0.5)
            biases.copy_(0.5 * torch.randn(biases.shape, generator=generator))
    return policy


@torch.no_grad()
def sample_multinomial(policy: TreePolicy, x_PD: Tensor, group_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The plain version: leaves and log-probabilities (P, G), each level a softmax and a torch.multinomial a rollout."""
    parts = [_multinomial_chunk(policy, x, group_size, generator) for x in x_PD.split(MULTINOMIAL_CHUNK)]
    leaf, logprob = zip(*parts, strict=True)
    return torch.cat(leaf), torch.cat(logprob)


def _multinomial_chunk(policy: TreePolicy, x_PD: Tensor, group_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    node_PG = torch.zeros(len(x_PD), group_size, dtype=torch.int64)
    logprob_PG = torch.zeros(node_PG.shape)
    for level in range(policy.levels):
        child_PGB = policy.child_nodes(level)[node_PG]
        safe = child_PGB.clamp(min=0)
        logits = torch.einsum("ph,pgbh->pgb", x_PD, embedding(safe, policy.vectors[level])) + policy.biases[level][safe]
        logprobs = logits.masked_fill(child_PGB < 0, -torch.inf).log_softmax(2)
        slot = torch.multinomial(logprobs.exp().flatten(0, 1), 1, generator=generator).view(*node_PG.shape, 1)
        node_PG = child_PGB.gather(2, slot)[..., 0]
        logprob_PG = logprob_PG + logprobs.gather(2, slot)[..., 0]
    return node_PG, logprob_PG


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, interleaved.

    A clocked call follows an unclocked one of its own: else it pays, in page faults, for the memory that the other let go.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            way()
            times[name].append(_timed(way))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(prompts: int, group_size: int, threads: int, repeats: int) -> dict[str, object]:
    """All figures, as the JSON object that `--json` prints."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(_catalog(prod(SIZES), SIZES), DIM, generator)
    x_PD = torch.randn(max(prompts, *FLAT_PROMPTS), DIM, generator=generator)

    def ours(count: int, on_threads: int = threads) -> Callable[[], object]:
        def way() -> object:
            torch.set_num_threads(on_threads)
            return sample_iid(policy, x_PD[:count], group_size, generator)

        return way

    packing = _timed(lambda: [policy.child_table(level) for level in range(1, policy.levels)])
    ways = {"ours": ours(prompts), "multinomial": lambda: sample_multinomial(policy, x_PD[:prompts], group_size, generator)}
    headline = medians(ways | {"signal": _signal(prompts, group_size)}, repeats)
    one_thread = medians({"ours": ours(prompts, 1)}, repeats)["ours"]
    # as many groups for every size, so that all sizes see the same noise
    flat = medians({str(count): _times(max(FLAT_PROMPTS) // count, ours(count)) for count in FLAT_PROMPTS}, repeats)
    cost = {count: 1e6 * seconds / max(FLAT_PROMPTS) for count, seconds in flat.items()}
    million = measure_million(group_size, repeats)
    figures: dict[str, float] = {
        "groups_per_second": prompts / headline["ours"],
        "ratio_to_multinomial": headline["multinomial"] / headline["ours"],
        "flat_cost": max(cost.values()) / min(cost.values()),
        "catalog_seconds": million["catalog_seconds"],
        "signal_share": headline["signal"] / (headline["ours"] + headline["signal"]),
    }
    return {
        **figures,
        "groups_per_second_multinomial": prompts / headline["multinomial"],
        "groups_per_second_one_thread": prompts / one_thread,
        "cpu_microseconds_per_group": 1e6 * _cpu_seconds(ways["ours"], repeats) / prompts,
        "cpu_microseconds_per_group_multinomial": 1e6 * _cpu_seconds(ways["multinomial"], 2) / prompts,
        "packing_seconds": packing,
        "microseconds_per_group": cost,
        "million": million,
        "target": {name: target for name, (target, _) in TARGETS.items()},
        "met": {name: _met(name, figures[name]) for name in TARGETS},
        **_circumstances(prompts, group_size, threads, repeats),
    }


def measure_million(group_size: int, repeats: int) -> dict[str, float]:
    """A million items: seconds to draw and index the catalog; speed and peak memory of sampling it level by level."""
    seconds = statistics.median(_timed(lambda: _catalog(MILLION, MILLION_SIZES)) for _ in range(repeats))
    generator = torch.Generator().manual_seed(1)
    catalog = _catalog(MILLION, MILLION_SIZES)
    policy, x_PD = make_policy(catalog, DIM, generator), torch.randn(MILLION_PROMPTS, DIM, generator=generator)
    before = _restart_peak()
    first = _timed(lambda: sample_iid(policy, x_PD, group_size, generator))
    peak = _memory("VmHWM") - before
    warm = medians({"ours": lambda: sample_iid(policy, x_PD, group_size, generator)}, repeats)["ours"]
    return {
        "catalog_seconds": seconds,
        "first_call_seconds": first,
        "groups_per_second": MILLION_PROMPTS / warm,
        "peak_extra_mb": peak / 1e6,
        "all_leaves_mb": 4e-6 * MILLION_PROMPTS * catalog.leaves,
        "parameters_mb": 4e-6 * sum(p.numel() for p in policy.parameters()),
    }


def check_quick(group_size: int) -> dict[str, object]:
    """On a tiny tree: shapes, log-probabilities, and frequencies against enumeration, for both contenders.

    Raises:
        SystemExit: a contender is off by more than 5 standard errors.
    """
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(_catalog(100, (6, 6, 6)), 4, generator)
    x_PD = torch.randn(1, 4, generator=generator).expand(40_000 // group_size, -1)
    exact_Y = policy.leaf_logprobs(x_PD[:1])[0].detach()
    ours = sample_iid(policy, x_PD, group_size, generator)
    narrow = sample_iid(policy, x_PD.repeat_interleave(group_size, 0), 1, generator)  # too few rollouts a prompt to enumerate
    ways = {
        "ours": (ours.leaf_PG, ours.logprob_PG),
        "ours_down_the_tree": (narrow.leaf_PG.view(ours.leaf_PG.shape), narrow.logprob_PG.view(ours.leaf_PG.shape)),
        "multinomial": sample_multinomial(policy, x_PD, group_size, generator),
    }
    worst = {name: _deviation(leaf, logprob, exact_Y, ours.leaf_PG.shape) for name, (leaf, logprob) in ways.items()}
    if max(worst.values()) > 5:
        raise SystemExit(f"the contenders disagree with enumeration, in standard errors: {worst}")
    return {
        "quick": True,
        "deviation": worst,
        "agree": True,
        **_circumstances(len(x_PD), group_size, torch.get_num_threads(), 1),
    }


def _deviation(leaf_PG: Tensor, logprob_PG: Tensor, exact_Y: Tensor, shape: torch.Size) -> float:
    if leaf_PG.shape != shape or not torch.allclose(logprob_PG, exact_Y[leaf_PG], atol=1e-4):
        raise SystemExit(f"a contender's log-probabilities are off, or its shape: {tuple(leaf_PG.shape)}")
    draws, prob = leaf_PG.numel(), exact_Y.exp().double()
    share = torch.bincount(leaf_PG.flatten(), minlength=len(prob)).double() / draws
    return float(((share - prob) / (prob * (1 - prob) / draws).sqrt()).abs().max())


def _catalog(items: int, sizes: tuple[int, ...]) -> Catalog:
    return Catalog.from_codes(synthetic_codes(items, sizes, np.random.default_rng(0)), sizes)


def _signal(groups: int, group_size: int) -> Callable[[], object]:
    """recast's whole construction on a batch of sparse hits."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(groups, group_size, generator=generator) < 0.0054).float()
    scores = torch.tensor((0.0, 0.01, 0.1))[torch.randint(3, rewards.shape, generator=generator)]
    valid, anchors = torch.ones_like(rewards, dtype=torch.bool), torch.ones(groups, dtype=torch.bool)
    return lambda: construct("recast", rewards, scores, valid_PG=valid, has_anchor_P=anchors)


def _cpu_seconds(way: Callable[[], object], repeats: int) -> float:
    """Median processor time of all threads: hardly moved by other work on the machine, unlike the wall clock."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        way()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def _times(count: int, way: Callable[[], object]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(count):
            way()

    return several


def _timed(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _met(name: str, value: float) -> bool:
    target, more = TARGETS[name]
    return value >= target if more else value <= target


def _memory(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _restart_peak() -> int:
    """Resident bytes now; VmHWM starts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _circumstances(prompts: int, group_size: int, threads: int, repeats: int) -> dict[str, object]:
    return {
        "prompts": prompts,
        "group_size": group_size,
        "threads": threads,
        "repeats": repeats,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "settings": {name: os.environ.get(name) for name in SETTINGS},
    }


def _report(result: dict) -> str:
    million, met = result["million"], result["met"]
    mark = {name: f"(target {result['target'][name]:g}: {'met' if met[name] else 'MISSED'})" for name in met}
    settings = ", ".join(f"{name}={value or 'not set'}" for name, value in result["settings"].items())
    lines = [
        f"{result['prompts']} prompts, G = {result['group_size']}, {result['threads']} torch thread(s), "
        f"torch {result['torch']}, medians of {result['repeats']}, load {result['load']:.1f}",
        f"{settings}",
        f"  recast_sim.sampling  {result['groups_per_second']:9.0f} groups/s  {mark['groups_per_second']}",
        f"  on one thread        {result['groups_per_second_one_thread']:9.0f} groups/s",
        f"  torch.multinomial    {result['groups_per_second_multinomial']:9.0f} groups/s",
        f"  processor time       {result['cpu_microseconds_per_group']:9.1f} us/group, multinomial "
        f"{result['cpu_microseconds_per_group_multinomial']:.0f} us/group",
        f"  ratio                {result['ratio_to_multinomial']:9.1f}x          {mark['ratio_to_multinomial']}",
        f"  packing the tables   {1e3 * result['packing_seconds']:9.1f} ms, once after each change of the parameters",
        f"  signal               {100 * result['signal_share']:9.1f} % of the time (the aim is 5 %)",
        "cost of a group by prompts",
        *(f"  {int(count):9,d}  {cost:6.1f} us" for count, cost in result["microseconds_per_group"].items()),
        f"  max / min  {result['flat_cost']:6.2f}  {mark['flat_cost']}",
        f"a catalog of {MILLION:,} items",
        f"  codes and index      {million['catalog_seconds']:9.2f} s  {mark['catalog_seconds']}",
        f"  sampling {MILLION_PROMPTS} prompts {million['groups_per_second']:8.0f} groups/s, the first time "
        f"{million['first_call_seconds']:.2f} s",
        f"  peak extra memory    {million['peak_extra_mb']:9.0f} MB; parameters {million['parameters_mb']:.0f} MB, "
        f"prompts x leaves would be {million['all_leaves_mb']:.0f} MB",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the result; 0 where every target is met, else 1."""
    parser = argparse.ArgumentParser(description="i.i.d. sampling from a large tree against torch.multinomial")
    parser.add_argument("--prompts", type=int, default=4096)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds; medians are over them")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="only check on a tiny tree that the contenders agree; prints JSON")
    options = parser.parse_args(arguments)
    if options.quick:
        print(json.dumps(check_quick(options.group_size)))
        return 0
    result = measure(options.prompts, options.group_size, options.threads, options.repeats)
    print(json.dumps(result) if options.json else _report(result))
    return 0 if all(result["met"].values()) else 1  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    sys.exit(main())
