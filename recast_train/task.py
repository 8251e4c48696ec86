"""What the stages of a real run share: the data, its prompts by split, the catalog, and the clock."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recast_sim.catalog import Catalog
from recast_sim.runs import RunError, atomic_directory, derive_seed, write_json
from recast_train.config import DataConfig, RealConfig, SidConfig
from recast_train.data import (
    Dataset,
    Prompts,
    prompts,
    read_dataset,
    train_matrix,
)
from recast_train.semantic_id import (
    SemanticIdError,
    load_sids,
    minilm_embeddings,
    save_sids,
    svd_embeddings,
    tokenize_items,
)

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """What every stage works on: data, its prompts by split, the catalog, and where and how to run."""

    root: Path
    config: RealConfig
    seed: int
    report: Report
    dataset: Dataset
    catalog: Catalog
    train: Prompts
    validation: Prompts
    test: Prompts


def load_dataset(config: DataConfig) -> Dataset:
    """The users in time of a recipe's data. Raises DataError, also for a format that comes as prompts (see `load_source`)."""
    return read_dataset(config)[0]


def prepare(config: RealConfig, dataset: Dataset, seed: int, root: Path, report: Report) -> Task:
    """Semantic IDs (made, or read where they are there) and prompts.

    Raises:
        RunError: semantic IDs of other data.
    """
    with timed(root, "sids"):
        if not (root / "sids").exists():
            matrix = train_matrix(dataset)
            table = tokenize_items(embed_items(config.sids, dataset, matrix, seed), config.sids.sizes, seed, matrix)
            with atomic_directory(root / "sids") as temporary:
                save_sids(table, temporary)
        table = load_sids(root / "sids")
    if len(table.codes_IL) != dataset.n_items:
        raise RunError(f"{root / 'sids'}: {len(table.codes_IL)} items, the data has {dataset.n_items}; start a new run")
    catalog = Catalog.from_codes(table.codes_IL, table.sizes)
    parts = {split: prompts(dataset, split, config.data.max_history) for split in ("train", "validation", "test")}
    parts["test"] = sample_prompts(parts["test"], config.evaluation.prompts or len(parts["test"]), seed, "test prompts")
    return Task(root, config, seed, report, dataset, catalog, **parts)


def embed_items(config: SidConfig, dataset: Dataset, matrix: csr_array, seed: int) -> NDArray[np.float64]:
    """Item embeddings (I, D) by the recipe; nothing from validation or test enters either kind.

    Raises:
        SemanticIdError: titles are wanted and the data has none, or the MiniLM is not there.
    """
    if config.embeddings == "svd":
        return svd_embeddings(matrix, config.dim, seed)
    if not dataset.titles:
        raise SemanticIdError("sids.embeddings: 'minilm' needs titles, and the data has none; use 'svd'")
    return minilm_embeddings(dataset.titles, config.minilm)


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
