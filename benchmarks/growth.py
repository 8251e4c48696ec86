"""How the cost of construction, rollouts, actor updates and evaluation grows: log-log slopes by least squares.

    python benchmarks/growth.py [--quick] [--json]

One thing grows at a time: rollouts a group (8 to 512), prompts a step, items of the catalog (1k to 1M), size of the model. A
slope of 1 is proportional cost, 0 none. Rollouts are independent draws. The actor's update is forward, backward and optimiser
step on all rows (grpo) or on two rows a group (recast). Construction is measured on many more groups than the model is, since
on a few it costs what its operations cost to start. The points of a sweep take turns in one process. No targets.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from harness import Entry, Result, interleaved, main
from torch import Tensor
from world import GROUP, random_catalog, random_model, random_prompts

from recast_sim.catalog import Catalog
from recast_sim.signal import construct
from recast_train.evaluate import search
from recast_train.model import ModelConfig, PromptTokens, SidModel
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.rollout import sample_rollouts

GROUPS, ITEMS, SIZES = (8, 32, 128, 512), (1_000, 32_000, 1_000_000), (128, 128, 128)
PARTS = ("construction", "rollout", "actor, all rows", "actor, 2 rows", "evaluation")
HISTORY, WIDTH = 8, 48
GROUPS_BUILT = 1024  # groups of a batch that construction is measured on while their size grows

Way = Callable[[], object]


def construction(groups: int, group_size: int) -> Way:
    """recast's whole construction on a batch of sparse hits."""
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(groups, group_size, generator=generator) < 0.0054).float()
    scores = torch.tensor((0.0, 0.01, 0.1))[torch.randint(3, rewards.shape, generator=generator)]
    anchors = torch.ones(groups, dtype=torch.bool)
    return lambda: construct("recast", rewards, scores, has_anchor_P=anchors)


def rollout(model: SidModel, prompts: PromptTokens, group_size: int) -> Way:
    generator = torch.Generator().manual_seed(0)
    return lambda: sample_rollouts(model, prompts, group_size, generator)


def actor(model: SidModel, prompts: PromptTokens, rows: int) -> Way:
    """An optimiser step on `rows` rows of every prompt."""
    prompt_N = torch.arange(len(prompts.tokens_PT)).repeat_interleave(rows)
    leaf_N = torch.randint(model.nodes[-1], prompt_N.shape, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        (-packed_logprobs(model, prompts, prompt_N, leaf_N).mean()).backward()
        optimiser.step()

    return step


def evaluation(model: SidModel, prompts: PromptTokens) -> Way:
    targets_PT: Tensor = torch.arange(len(prompts.tokens_PT))[:, None]
    return lambda: search(model, prompts, targets_PT, WIDTH)


def on_model(model: SidModel, catalog: Catalog, prompts: int, group_size: int) -> dict[str, Way]:
    """The parts that run the model."""
    tokens = random_prompts(model, catalog, prompts, HISTORY)
    return {
        "rollout": rollout(model, tokens, group_size),
        "actor, all rows": actor(model, tokens, group_size),
        "actor, 2 rows": actor(model, tokens, 2),
    }


def slope(cost: Mapping[int, float]) -> float:
    """Exponent of the power law that fits best."""
    return float(np.polyfit(np.log(list(cost)), np.log(list(cost.values())), 1)[0])


def sweep(grows: str, points: Mapping[int, Mapping[str, Way]], repeats: int) -> tuple[list[Entry], list[dict[str, Any]]]:
    """Slopes of each part over the sizes, and a row of milliseconds a size."""
    ways = {f"{part} {size}": way for size, parts in points.items() for part, way in parts.items()}
    seconds = interleaved(ways, repeats)
    of = {part: {size: seconds[f"{part} {size}"] for size in points} for part in next(iter(points.values()))}
    entries = [Entry(f"{part}, by {grows}", slope(cost), "log-log slope") for part, cost in of.items()]
    rows = [
        {"grows": grows, "to": size, **{f"{part} ms": 1e3 * of[part][size] if part in of else "" for part in PARTS}}
        for size in points
    ]
    return entries, rows


def measure(quick: bool) -> Result:
    """Quick: the tiny model, fewer prompts and rounds."""
    sizes: tuple[Any, ...] = ("tiny", "small") if quick else ("tiny", "small", "base")
    prompts, repeats = (4, 2) if quick else (8, 3)
    catalog = random_catalog(ITEMS[1], SIZES)
    models = [random_model(catalog, ModelConfig(size=size, dropout=0.0, attention_dropout=0.0)) for size in sizes]
    model = models[0] if quick else models[1]
    entries: list[Entry] = []
    table: list[Mapping[str, Any]] = []
    several = [prompts // 2, prompts, 2 * prompts, 4 * prompts]
    sweeps = {
        "rollouts a group": {
            size: {"construction": construction(GROUPS_BUILT, size), **on_model(model, catalog, prompts, size)}
            for size in GROUPS
        },
        "groups of a batch": {size: {"construction": construction(size, GROUP)} for size in (256, 1024, 4096, 16384)},
        "prompts a step": {size: on_model(model, catalog, size, GROUP) for size in several},
        "items of the catalog": {size: _by_items(size, prompts) for size in ITEMS},
        "parameters": {of.parameter_count: on_model(of, catalog, prompts, GROUP) for of in models},
    }
    for grows, points in sweeps.items():
        own, rows = sweep(grows, points, repeats)
        entries += own
        table += rows
    settings = {"model": sizes[0] if quick else sizes[1], "prompts": prompts, "group size": GROUP, "items": ITEMS[1]}
    return Result(entries, table, settings)


def _by_items(items: int, prompts: int) -> dict[str, Way]:
    catalog = random_catalog(items, SIZES)
    model = random_model(catalog, ModelConfig(size="tiny", dropout=0.0, attention_dropout=0.0))
    tokens = random_prompts(model, catalog, prompts, HISTORY)
    return {"rollout": rollout(model, tokens, GROUP), "evaluation": evaluation(model, tokens)}


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
