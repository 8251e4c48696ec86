"""Speed of the simulator: i.i.d. rollouts down a tree too large to enumerate, against torch.multinomial level by level.

    python benchmarks/simulator.py [--quick] [--json]

Groups a second on a full 64 x 64 x 64 tree with a 32-dimensional linear policy, the ratio to torch.multinomial, the cost of a
group as prompts grow, a catalog of a million items, the share of the learning signal, and a whole training step against recast
by hand (simulator_step.py). All on one thread, as every command samples. Before anything is timed the contenders must draw from
the distribution that enumeration gives on a small tree.
"""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import simulator_step
import torch
from harness import Entry, Result, interleaved, main, memory, restart_peak, timed
from torch import Tensor
from torch.nn.functional import embedding
from world import GROUP, random_catalog

from recast_sim.catalog import Catalog
from recast_sim.signal import construct
from recast_sim.world.policy import PolicyConfig, TreePolicy
from recast_sim.world.sampling import sample_iid

SIZES, DIM, PROMPTS = (64, 64, 64), 32, 4096
MILLION, MILLION_SIZES, MILLION_PROMPTS = 1_000_000, (128, 128, 128), 1024
FLAT_PROMPTS = (512, 2048, 8192)
MULTINOMIAL_CHUNK = 64  # prompts; the fastest of 4, 16 and 64 for the multinomial version: more leave the cache


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


def check_distribution(group_size: int = GROUP) -> None:
    """On a tiny tree: shapes, log-probabilities, and frequencies against enumeration, for both contenders.

    Raises:
        SystemExit: a contender is off by more than 5 standard errors.
    """
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(random_catalog(100, (6, 6, 6)), 4, generator)
    x_PD = torch.randn(1, 4, generator=generator).expand(40_000 // group_size, -1)
    exact_Y = policy.leaf_logprobs(x_PD[:1])[0].detach()
    ours = sample_iid(policy, x_PD, group_size, generator)
    narrow = sample_iid(policy, x_PD.repeat_interleave(group_size, 0), 1, generator)  # too few rollouts a prompt to enumerate
    ways = {
        "ours": (ours.leaf_PG, ours.logprob_PG),
        "ours, down the tree": (narrow.leaf_PG.view(ours.leaf_PG.shape), narrow.logprob_PG.view(ours.leaf_PG.shape)),
        "multinomial": sample_multinomial(policy, x_PD, group_size, generator),
    }
    worst = {name: _deviation(leaf, logprob, exact_Y, ours.leaf_PG.shape) for name, (leaf, logprob) in ways.items()}
    if max(worst.values()) > 5:
        raise SystemExit(f"the contenders disagree with enumeration, in standard errors: {worst}")


def measure(quick: bool) -> Result:
    """Quick: fewer rounds, and without the largest number of prompts."""
    torch.set_num_threads(1)
    check_distribution()
    repeats, sizes = (2, FLAT_PROMPTS[:-1]) if quick else (3, FLAT_PROMPTS)
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(random_catalog(prod(SIZES), SIZES), DIM, generator)
    x_PD = torch.randn(max(PROMPTS, *sizes), DIM, generator=generator)

    def ours(count: int) -> Callable[[], object]:
        return lambda: sample_iid(policy, x_PD[:count], GROUP, generator)

    multinomial = {"multinomial": lambda: sample_multinomial(policy, x_PD[:PROMPTS], GROUP, generator)}
    seconds = interleaved({"ours": ours(PROMPTS), "signal": _signal(PROMPTS, GROUP)} | multinomial, repeats, time.thread_time)
    # as many groups for every size, so that all sizes see the same noise
    flat = interleaved({str(count): _times(sizes[-1] // count, ours(count)) for count in sizes}, repeats, time.thread_time)
    entries = [
        Entry("groups a second", PROMPTS / seconds["ours"], "groups/s"),
        Entry("against torch.multinomial", seconds["multinomial"] / seconds["ours"], "x"),
        Entry("cost of a group, dearest over cheapest", max(flat.values()) / min(flat.values()), "x", 1.2, at_least=False),
        Entry("share of the signal", seconds["signal"] / (seconds["ours"] + seconds["signal"]), ""),
        *measure_million(repeats),
        *simulator_step.measure_step(2 * repeats),
    ]
    table: list[Mapping[str, Any]] = [
        {"prompts": int(count), "us a group": 1e6 * cost / sizes[-1]} for count, cost in flat.items()
    ]
    return Result(entries, table, {"prompts": PROMPTS, "group size": GROUP, "sizes": SIZES, "rounds": repeats})


def measure_million(repeats: int) -> list[Entry]:
    """A million items: seconds to draw and index the catalog; speed and peak memory of sampling it level by level."""
    seconds = statistics.median(timed(lambda: random_catalog(MILLION, MILLION_SIZES)) for _ in range(repeats))
    generator = torch.Generator().manual_seed(1)
    policy = make_policy(random_catalog(MILLION, MILLION_SIZES), DIM, generator)
    x_PD = torch.randn(MILLION_PROMPTS, DIM, generator=generator)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier measurements freed is no part of the peak, nor hides some of it
    before = restart_peak()
    sample_iid(policy, x_PD, GROUP, generator)
    peak = memory("VmHWM") - before
    taken = interleaved({"ours": lambda: sample_iid(policy, x_PD, GROUP, generator)}, repeats, time.thread_time)["ours"]
    return [
        Entry("1M items, codes and index", seconds, "s", 1.0, at_least=False),
        Entry("1M items", MILLION_PROMPTS / taken, "groups/s"),
        Entry("1M items, peak memory beside the parameters", peak / 1e6, "MB"),
        Entry("1M items, memory that prompts x leaves would take", 4e-6 * MILLION_PROMPTS * policy.leaves, "MB"),
    ]


def _deviation(leaf_PG: Tensor, logprob_PG: Tensor, exact_Y: Tensor, shape: torch.Size) -> float:
    if leaf_PG.shape != shape or not torch.allclose(logprob_PG, exact_Y[leaf_PG], atol=1e-4):
        raise SystemExit(f"a contender's log-probabilities are off, or its shape: {tuple(leaf_PG.shape)}")
    draws, prob = leaf_PG.numel(), exact_Y.exp().double()
    share = torch.bincount(leaf_PG.flatten(), minlength=len(prob)).double() / draws
    return float(((share - prob) / (prob * (1 - prob) / draws).sqrt()).abs().max())


def _signal(groups: int, group_size: int) -> Callable[[], object]:
    """recast's whole construction on a batch of sparse hits."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(groups, group_size, generator=generator) < 0.0054).float()
    scores = torch.tensor((0.0, 0.01, 0.1))[torch.randint(3, rewards.shape, generator=generator)]
    valid, anchors = torch.ones_like(rewards, dtype=torch.bool), torch.ones(groups, dtype=torch.bool)
    return lambda: construct("recast", rewards, scores, valid_PG=valid, has_anchor_P=anchors)


def _times(count: int, way: Callable[[], object]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(count):
            way()

    return several


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
