"""Parts of our trainer's step under grpo and under recast, for `step.py`: prints one JSON object.

    python benchmarks/step_ours.py SIZE PROMPTS STEPS

SIZE names a shape of `ModelConfig`.
"""

import copy
import json
import statistics
import sys
import time
from typing import Any

import torch
from world import GROUP, HISTORY, STEP_ITEMS, STEP_SIZES, random_catalog, random_model, random_prompts

from recast_sim.signal import ObjectiveConfig, get_constructor
from recast_train.engine import Engine, EngineConfig
from recast_train.model import ModelConfig
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rl_loop import BUDGET
from recast_train.rl.rollout_groups import TrainPrompts
from recast_train.rl.step import Step

PARTS = ("rollout", "reward", "signal", "old", "reference", "actor")


def measure(size: Any, prompts: int, steps: int) -> dict[str, dict[str, float]]:
    """Medians over steps 2, 3, ... by method and updates a batch; the contenders take turns."""
    catalog = random_catalog(STEP_ITEMS, STEP_SIZES)
    model = random_model(catalog, ModelConfig(size=size, dropout=0.0, attention_dropout=0.0))
    tokens = random_prompts(model, catalog, prompts, HISTORY)
    train = TrainPrompts(tokens, torch.arange(prompts)[:, None])
    with Engine(EngineConfig()) as engine:
        reference, ways = engine.prepare(copy.deepcopy(model).requires_grad_(False)), {}
        for updates in (1, 2):
            for method in ("grpo", "recast"):
                own = engine.prepare(copy.deepcopy(model))
                totals: dict[str, int] = dict.fromkeys(BUDGET, 0)
                config = RlConfig(
                    objective=ObjectiveConfig(kl=1e-3),
                    group_size=GROUP,
                    prompts_per_step=prompts,
                    updates_per_batch=updates,
                )
                optimiser = torch.optim.AdamW(own.parameters(), lr=1e-5)
                ways[f"{method} {updates}"] = Step(
                    engine, own, reference, train, get_constructor(method), config, 0, optimiser, totals
                )
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for step in range(1, steps + 2):
            for name, way in ways.items():
                rows[name].append(_timed(way, step))
    return {name: {key: statistics.median(row[key] for row in of[1:]) for key in of[0]} for name, of in rows.items()}


def _timed(way: Step, step: int) -> dict[str, float]:
    before, start = dict(way.totals), time.perf_counter()
    row, _ = way(step)
    found = {part: row[f"seconds_{part}"] for part in PARTS} | {"step": time.perf_counter() - start}
    return found | {name: way.totals[name] - before[name] for name in BUDGET}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
