"""recast's sampler on a tiny world: it looks for finished rollouts more often, and leaves a record of what it took and gave."""
# pyright: reportMissingImports=false

import os
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq

from recast_train.adapters.verl.sampler import RecastReplayBuffer

RECORDS = "RECAST_TEST_RECORDS"  # the folder, one file a step: `drawn` and `trained`, tables by row key


class QuickReplayBuffer(RecastReplayBuffer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.poll_interval = 0.2  # seconds; verl's 2 are most of a tiny step

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        chosen, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "train":
            self.record["trained"] = _rows(chosen.keys, "prompts", "responses", "rm_scores")
            torch.save(self.record, Path(os.environ[RECORDS]) / f"{global_steps}.pt")
        return chosen, metrics

    def _select(self, keys: list[str], rows: Any, generator: torch.Generator) -> Any:
        fields = ("prompts", "responses", "rm_scores", "extra_fields", "extra_info", "rollout_log_probs")
        self.record = {"drawn": _rows(keys, *fields)}
        return super()._select(keys, rows, generator)


def _rows(keys: list[str], *fields: str) -> dict[str, dict[str, Any]]:
    """Those of the fields that there are."""
    table = tq.kv_batch_get(keys, "train", list(fields))
    there = list(table.keys())
    return {key: {name: row[name] for name in there} for key, row in zip(keys, table, strict=True)}
