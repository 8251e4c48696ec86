"""What `step_model.py` times: steps of our trainer on a grid of small models, and two processes' collectives over gloo.

As a script (`step_cells.py RANK FILE`) it is one of the two processes, and rank 0 prints a JSON list.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from world import random_catalog, random_prompts

from recast_sim.signal import ObjectiveConfig, get_constructor
from recast_train.engine import Engine
from recast_train.model import ModelConfig, build_model
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rl_loop import BUDGET
from recast_train.rl.rollout_groups import TrainPrompts
from recast_train.rl.step import Step

METHODS, PARTS, UPDATES = ("grpo", "recast"), ("rollout", "old", "reference", "actor"), 2
ITEMS, LATER = 2048, (16, 16)  # of the catalog, codes of its later levels
PAYLOADS = tuple(2**power for power in range(12, 25, 2))  # bytes of a collective's whole tensor


@dataclass(frozen=True)
class Cell:
    """A model and a batch; `items` in a prompt of 1 + 3 * items tokens, `codes` of the first level."""

    hidden: int
    layers: int
    items: int
    prompts: int
    group_size: int
    codes: int = 512
    fitted: bool = True


_WIDTHS, _BATCHES = ((64, 2), (128, 4), (256, 2), (256, 6)), ((10, 16, 16), (42, 4, 32))
CELLS = (
    *(Cell(*width, *batch) for width in _WIDTHS for batch in _BATCHES),
    *(Cell(*width, 42, 4, 8, 6000) for width in ((64, 2), (256, 2))),
    *(Cell(160, 5, *batch, fitted=False) for batch in ((20, 8, 16), (85, 2, 32))),
    *(Cell(320, 3, *batch, fitted=False) for batch in ((10, 8, 32), (42, 4, 8), (128, 2, 16, 3000))),
    *(Cell(512, 8, *batch, fitted=False) for batch in ((42, 2, 32), (128, 1, 16))),
)


class Clocked(torch.optim.AdamW):
    """AdamW that adds up the seconds of its steps."""

    spent = 0.0

    def step(self, closure: Any = None) -> Any:
        begun = time.perf_counter()
        found = super().step(closure)
        self.spent += time.perf_counter() - begun
        return found


def step_rows(engine: Engine, cell: Cell, number: int) -> Iterator[dict[str, Any]]:
    """Step `number` of each method from the same weights: its counts, and seconds by phase."""
    catalog = random_catalog(ITEMS, (cell.codes, *LATER))
    config = ModelConfig(
        hidden=cell.hidden,
        layers=cell.layers,
        heads=max(2, cell.hidden // 64),
        feed_forward=5 * cell.hidden // 2,
        dropout=0.0,
        attention_dropout=0.0,
    )
    model = build_model(catalog, config, 0)
    train = TrainPrompts(random_prompts(model, catalog, cell.prompts, cell.items), torch.arange(cell.prompts)[:, None])
    reference = engine.prepare(copy.deepcopy(model).requires_grad_(False))
    rl = RlConfig(
        objective=ObjectiveConfig(kl=1e-3),
        group_size=cell.group_size,
        prompts_per_step=cell.prompts,
        updates_per_batch=UPDATES,
    )
    for method in METHODS:
        own = engine.prepare(copy.deepcopy(model))
        totals: dict[str, int] = dict.fromkeys(BUDGET, 0)
        optimiser = Clocked(own.parameters(), lr=1e-5)
        step = Step(engine, own, reference, train, get_constructor(method), rl, 0, optimiser, totals)
        row, _ = step(number)
        seconds = {part: row[f"seconds_{part}"] for part in PARTS}
        seconds |= {"actor": seconds["actor"] - optimiser.spent, "optimiser": optimiser.spent}
        known = asdict(cell) | {"sizes": catalog.sizes, "feed_forward": config.feed_forward, "heads": config.heads}
        yield {**known, "updates": UPDATES, "method": method, "counts": totals, "seconds": seconds}


def collectives(repeats: int) -> list[dict[str, Any]]:
    """Least seconds of all-gather and reduce-scatter over two processes, by bytes of the whole tensor."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__]
        ranks = [
            subprocess.Popen([*command, str(rank), f"{folder}/store", str(repeats)], stdout=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        found, _ = (process.communicate()[0] for process in ranks)
    return json.loads(found.splitlines()[-1])


def _rank(rank: int, store: str, repeats: int) -> list[dict[str, Any]]:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{Path(store)}", rank=rank, world_size=2)
    rows = []
    for size in PAYLOADS:
        whole, part = torch.zeros(size // 4), torch.zeros(size // 8)
        ways = {
            "all-gather": lambda whole=whole, part=part: dist.all_gather_into_tensor(whole, part),
            "reduce-scatter": lambda whole=whole, part=part: dist.reduce_scatter_tensor(part, whole),
        }
        for name, way in ways.items():
            rows.append({"collective": name, "bytes": size, "seconds": min(_timed(way) for _ in range(repeats))})
    dist.destroy_process_group()
    return rows


def _timed(way: Any) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(json.dumps(_rank(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
