"""A whole real run: data, semantic IDs, references, supervised start, RL methods from it, evaluation.

Every stage leaves its result in the run's folder and is skipped when it is there; a stage that was killed goes on from its
last checkpoint. Layout, where sft and rl/METHOD are run folders with `model/` and `evaluation/` beside their tables:

    manifest.json  sids/  references.json  sft/  rl/METHOD/  seconds.json  scores.parquet  results.json
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recast_sim.comparing import Method
from recast_sim.runs import atomic_file, write_json
from recast_sim.runs.reader import read_manifest
from recast_train.data import load_source
from recast_train.data.references import Policy
from recast_train.engine import Engine
from recast_train.engine.sinks import check_sink
from recast_train.pipeline.made_from import MADE_FROM, digest, of_data, of_prompts, refuse_stale
from recast_train.pipeline.recipe import RealConfig, parse_methods
from recast_train.pipeline.reference_metrics import reference_metrics
from recast_train.pipeline.run_task import Report, Task, prepare, read_json, timed
from recast_train.pipeline.stages import evaluated, open_stage, read_evaluation, read_learning, reinforced, supervised
from recast_train.semantic_id import load_sids

PAPER_ALL_ZERO = 0.85  # share of all-zero groups at G = 32 in the paper (arXiv 2604.22169)


def run_real(config: RealConfig, seed: int, root: Path, resume: bool, report: Report = lambda *_: None) -> dict[str, Any]:
    """Run what is not yet done below `root` and return the results, which are also left in results.json.

    scores.parquet keeps the metrics of each test prompt, a row for each model and prompt, and learning.parquet what tells
    learning from sharpening (`recast_train.sharpening`): intervals are made of them in the report.

    Under a launcher every process calls it; rank 0 reads and writes the folder, all get the results.

    Raises:
        RunError: a run is there and `resume` is false, or it was started with another config or seed.
        DataError, SemanticIdError, TrainError: see the stages; a sink that is not installed, before anything else.
    """
    check_sink(config.sink)
    source = load_source(config.data)  # data that cannot be read leaves no folder behind
    with Engine(config.engine, config.device) as engine:
        writer, kept = None, {key: value for key, value in asdict(config).items() if key != "sink"}
        kept[MADE_FROM] = {"data": of_data(source)}

        def start() -> dict[str, Any]:
            nonlocal writer
            writer = open_stage(root, "real", kept, seed, resume)
            return {} if writer else read_json(root / "results.json", root / "manifest.json")

        if done := engine.on_main(start):
            return done
        task = prepare(config, source, seed, root, report if engine.is_main else lambda *_: None, engine)
        task = replace(task, sink=config.sink)
        with timed(engine, root, "references"):
            engine.on_main(lambda: _references(task))
        with timed(engine, root, "sft"):
            model = supervised(task)
        with timed(engine, root, "evaluation/start"):
            evaluated(task, "start", root / "sft", model)
        for method in parse_methods(config.methods):
            with timed(engine, root, f"rl/{method.name}"):
                model = reinforced(task, method, method.applied(config.rl), rl_folder(task, method))
            with timed(engine, root, f"evaluation/{method.name}"):
                evaluated(task, method.name, rl_folder(task, method), model)

        def finish() -> dict[str, Any]:
            assert writer is not None
            results = _results(task, config)
            write_json(root / "results.json", results)
            writer.close(summary={"seconds": results["seconds"]["total"]})
            return results

        return engine.on_main(finish)


def _references(task: Task) -> None:
    file = task.root / "references.json"
    now = task.made_from | {"test prompts": of_prompts(task.test), "sasrec": digest(asdict(task.config.sasrec))}
    now |= {"evaluation.cuts": digest(task.config.evaluation.cuts)}
    if file.exists():
        refuse_stale(file, read_json(file).get(MADE_FROM), now)
    else:
        neighbours, metrics = reference_metrics(task)
        write_json(file, {"neighbours": neighbours, "metrics": metrics, MADE_FROM: now})


def rl_folder(task: Task, method: Method) -> Path:
    """Where a method's run lies."""
    return task.root / "rl" / method.folder


def _results(task: Task, config: RealConfig) -> dict[str, Any]:
    started, seconds = read_evaluation(task.root / "sft"), read_json(task.root / "seconds.json")
    known, supervised = read_json(task.root / "references.json"), read_manifest(task.root / "sft")["summary"]
    entries, scored, cuts = {}, {"start": started[0]}, config.evaluation.cuts
    learning = {"start": read_learning(task.root / "sft")}
    for method in parse_methods(config.methods):
        folder = rl_folder(task, method)
        scored[method.name], shares = read_evaluation(folder)
        learning[method.name] = read_learning(folder)
        budget = read_manifest(folder)["summary"]
        entries[method.name] = {**scored[method.name].summary(cuts), **shares, **budget, "folder": folder.name}
    _write_rows(task.root / "scores.parquet", {n: {"user": own.user_N, **own.metric_rows()} for n, own in scored.items()})
    told = {name: found for name, found in learning.items() if found is not None}
    if told:
        _write_rows(task.root / "learning.parquet", {name: rows for name, (rows, _) in told.items()})
    return {
        "references": {name: _reference(row, started[0].policy) for name, row in known["metrics"].items()},
        "item_knn_neighbours": known["neighbours"],
        "sids": {"sizes": list(task.catalog.sizes), **load_sids(task.root / "sids").report},
        "sft": {**started[0].summary(cuts), **started[1], **supervised},
        "methods": entries,
        "notes": list(task.notes),
        "learning": {name: means for name, (_, means) in told.items()},
        "paper_all_zero": PAPER_ALL_ZERO,
        "group_size": task.config.evaluation.group_size,
        "test_prompts": len(task.test),
        "test_users": len(np.unique(task.test.user_N)),
        "seeds": 1,
        "seconds": {**seconds, "total": sum(seconds.values())},
    }


def _write_rows(file: Path, columns: Mapping[str, Mapping[str, Any]]) -> None:
    """A row a model and prompt."""
    rows = [pl.DataFrame(own).select(pl.lit(name).alias("model"), pl.all()) for name, own in columns.items()]
    with atomic_file(file) as temporary:
        pl.concat(rows).write_parquet(temporary)


def _reference(row: dict[str, Any], policy: Policy) -> dict[str, Any]:
    """A reference in the shape of a model: it samples nothing."""
    nothing = dict.fromkeys(("pass_at_1_sampled", "pass_at_1_greedy", "all_zero"))
    return {**row[policy], **row, **nothing}
