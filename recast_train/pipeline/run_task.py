"""What the stages of a real run share: the data, its prompts by split, the catalog, and the clock."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recast_sim.bounded import read_json_file
from recast_sim.catalog import Catalog
from recast_sim.runs import RunError, atomic_directory, write_json
from recast_train.data import Dataset, Prompts, Source, load_source, sample_prompts
from recast_train.engine import Engine
from recast_train.engine.sinks import SinkName
from recast_train.pipeline import made_from
from recast_train.pipeline.given_start import sids_of
from recast_train.pipeline.made_from import MADE_FROM, Hashes
from recast_train.pipeline.recipe import Recipe
from recast_train.semantic_id import SidConfig, SidTable, given_table, load_sids, make_sids, save_sids

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """What every stage works on: data, its prompts by split, the catalog, and where and how to run.

    `made_from` has the hashes of data and semantic IDs; `notes` is what the reader of the data wants to be known.
    """

    root: Path
    config: Recipe
    seed: int
    report: Report
    engine: Engine
    dataset: Dataset
    catalog: Catalog
    train: Prompts
    validation: Prompts
    test: Prompts
    held_back: Prompts | None = None
    made_from: Hashes = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sink: SinkName = "none"


def prepare(config: Recipe, source: Source, seed: int, root: Path, report: Report, engine: Engine) -> Task:
    """Semantic IDs (given with the data, made, or read where they were made before) and prompts; on all ranks.

    Raises:
        RunError: semantic IDs that were made from other data, settings or another seed.
    """
    of_source, sids = made_from.of_data(source), sids_of(config.start, config.sids, source)

    def codes() -> dict[str, Any]:
        folder, note = root / "sids", f"{MADE_FROM}.json"
        now = {"data": of_source, "settings": made_from.of_sids(sids), "seed": str(seed)}
        if not folder.exists():
            table = _table(sids, source, seed, report)
            with atomic_directory(folder) as temporary:
                save_sids(table, temporary)
                write_json(temporary / note, now)
        table = load_sids(folder)
        made_from.refuse_stale(folder, read_json(folder / note, folder) if (folder / note).exists() else None, now)
        return {"codes": table.codes_IL.tolist(), "sizes": table.sizes, "hash": table.hash[:16]}

    with timed(engine, root, "sids"):
        found = engine.on_main(codes)
    catalog = Catalog.from_codes(np.array(found["codes"]), found["sizes"])
    test = sample_prompts(source.test, config.evaluation.prompts or len(source.test), seed, "test prompts")
    parts = (source.dataset, catalog, source.train, source.validation, test)
    hashes = {"data": of_source, "semantic IDs": found["hash"]}
    return Task(root, config, seed, report, engine, *parts, source.held_back, hashes, source.notes)


@contextmanager
def opened_task(root: Path, config: Recipe, seed: int) -> Iterator[Task]:
    """A task in a folder that is made where it is missing, on an engine of its own, silent: what a job of a sweep works on."""
    root.mkdir(parents=True, exist_ok=True)
    with Engine(config.engine, config.device) as engine:
        yield prepare(config, load_source(config.data), seed, root, lambda *_: None, engine)


def _table(config: SidConfig, source: Source, seed: int, report: Report) -> SidTable:
    if source.sids is not None:
        if config.path is not None:
            raise RunError(f"sids.path: {config.path} stands beside the semantic IDs of the data; leave it out")
        return given_table(source.sids, config.collisions)
    return make_sids(config, source.dataset, seed, lambda done, total: report("semantic IDs", done, total))


def read_json(file: Path, delete: Path | None = None) -> dict[str, Any]:
    """A JSON object of a run's folder. Raises RunError where it is damaged, which says what to `delete` (default the file)."""
    try:
        found = read_json_file(file, RunError)
    except (OSError, RunError) as error:
        raise RunError(f"{file}: not readable: {error}; delete {delete or file}, then --resume makes it anew") from error
    if not isinstance(found, dict):
        raise RunError(f"{file}: holds no JSON object; delete {delete or file}, then --resume makes it anew")
    return found


@contextmanager
def timed(engine: Engine, root: Path, stage: str) -> Iterator[None]:
    """Add the seconds of a stage to seconds.json; of a stage that was killed, those after its resumption count."""
    begun, file = time.perf_counter(), root / "seconds.json"
    yield
    if engine.is_main:
        spent = read_json(file) if file.exists() else {}
        write_json(file, spent | {stage: round(spent.get(stage, 0.0) + time.perf_counter() - begun, 2)})
