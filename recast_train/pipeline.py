"""A whole real run: data, semantic IDs, references, supervised start, RL methods from it, evaluation.

Every stage leaves its result in the run's folder and is skipped when it is there; a stage that was killed goes on from its
last checkpoint. Layout, where sft and rl/METHOD are run folders with `model/` and `evaluation/` beside their tables:

    manifest.json  sids/  references.json  sft/  rl/METHOD/  seconds.json  results.json
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recast_sim.runs import RunError, RunWriter, atomic_directory, derive_seed, write_json
from recast_sim.runs.checkpoint import load_state, save_state
from recast_sim.runs.reader import read_manifest
from recast_train.compare import differences
from recast_train.config import RealConfig
from recast_train.evaluate import (
    EvaluationConfig,
    PromptScores,
    expected_all_zero,
    sampled_all_zero,
    score_prompts,
    target_logprobs,
)
from recast_train.model import SidModel, TrainError, build_model
from recast_train.references import choose_neighbours, references
from recast_train.rl import train_prompts, train_rl
from recast_train.semantic_id import load_sids
from recast_train.sft import train_sft
from recast_train.task import Report, Task, load_dataset, prepare, sample_prompts, timed

PAPER_ALL_ZERO = 0.85  # share of all-zero groups at G = 32 in the paper (arXiv 2604.22169)


def run_real(config: RealConfig, seed: int, root: Path, resume: bool, report: Report = lambda *_: None) -> dict[str, Any]:
    """Run what is not yet done below `root` and return the results, which are also left in results.json.

    Raises:
        RunError: a run is there and `resume` is false, or it was started with another config or seed.
        DataError, SemanticIdError, TrainError: see the stages.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainError("RealConfig.device: 'cuda' is not available here; use 'cpu'")
    dataset = load_dataset(config.data)  # data that cannot be read leaves no folder behind
    writer = _open(root, "real", asdict(config), seed, resume)
    if writer is None:
        return json.loads((root / "results.json").read_text(encoding="utf-8"))
    task = prepare(config, dataset, seed, root, report)
    with timed(root, "references"):
        known = _references(task)
    with timed(root, "sft"):
        start = _supervised(task)
    started = _evaluated(task, "start", root / "sft", start)
    methods = {}
    for name in config.methods:
        with timed(root, f"rl/{name}"):
            model = _reinforced(task, name)
        methods[name] = _evaluated(task, name, root / "rl" / name, model)
    results = _results(task, known, started, methods)
    write_json(root / "results.json", results)
    writer.close(summary={"seconds": results["seconds"]["total"]})
    return results


def _references(task: Task) -> dict[str, Any]:
    file = task.root / "references.json"
    if not file.exists():
        neighbours = choose_neighbours(task.dataset, task.validation)
        write_json(file, {"neighbours": neighbours, "metrics": references(task.dataset, task.test, neighbours)})
    return json.loads(file.read_text(encoding="utf-8"))


def _supervised(task: Task) -> SidModel:
    config, folder = task.config, task.root / "sft"
    model = build_model(task.catalog, config.model, task.seed).to(config.device)
    settings = {"training": asdict(config.sft), "model": asdict(config.model)}
    writer = _open(folder, "real-sft", settings, task.seed, resume=True)
    if writer is not None:
        tell = _teller(task, "supervised training", config.sft.steps)
        data = (task.catalog, task.dataset, task.validation)
        summary = train_sft(model, *data, config.sft, derive_seed(task.seed, "sft"), writer, tell)
        _close(writer, model, summary)
    load_state(folder / "model", model)
    return model


def _reinforced(task: Task, name: str) -> SidModel:
    config, folder = task.config, task.root / "rl" / name
    model = build_model(task.catalog, config.model, task.seed).to(config.device)
    load_state(task.root / "sft" / "model", model)
    settings = {"training": {"constructor": name, **asdict(config.rl)}}
    writer = _open(folder, "real-rl", settings, task.seed, resume=True)
    if writer is not None:
        tell = _teller(task, name, config.rl.steps)
        train = train_prompts(task.train, task.catalog, model.vocabulary)
        # one seed for all methods: they see the same prompts
        seed = derive_seed(task.seed, "rl")
        budget = train_rl(model, task.catalog, train, task.validation, name, config.rl, seed, writer, tell)
        _close(writer, model, budget)
    load_state(folder / "model", model)
    return model


def _evaluated(task: Task, name: str, folder: Path, model: SidModel) -> tuple[PromptScores, dict[str, float]]:
    """Scores of the test prompts and the all-zero shares; read where they are there already."""
    where = folder / "evaluation"
    with timed(task.root, f"evaluation/{name}"):
        if not where.exists():
            scores, shares = _evaluate(task, name, model, task.config.evaluation)
            with atomic_directory(where) as temporary:
                save_file(
                    {key: np.ascontiguousarray(row) for key, row in scores.columns().items()}, temporary / "scores.safetensors"
                )
                write_json(temporary / "all_zero.json", shares)
        try:
            columns: dict[str, Any] = load_file(where / "scores.safetensors")
            return PromptScores(**columns), json.loads((where / "all_zero.json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise RunError(f"{where}: not readable ({error}); delete it and resume") from error


def _evaluate(task: Task, name: str, model: SidModel, config: EvaluationConfig) -> tuple[PromptScores, dict[str, float]]:
    done, tell = 0, _teller(task, f"evaluating {name}", len(task.test))

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        tell(done)

    scores = score_prompts(model, task.catalog, task.test, config, on_batch)
    some = sample_prompts(task.train, config.train_prompts, task.seed, "train prompts")
    probability = np.exp(target_logprobs(model, task.catalog, some))
    shares = {
        "all_zero": sampled_all_zero(model, task.catalog, some, config, task.seed),
        "all_zero_expected_train": expected_all_zero(probability, config.group_size),
        "all_zero_expected_test": expected_all_zero(scores.probability_N, config.group_size),
    }
    return scores, shares


def _results(
    task: Task,
    known: dict[str, Any],
    started: tuple[PromptScores, dict[str, float]],
    methods: dict[str, tuple[PromptScores, dict[str, float]]],
) -> dict[str, Any]:
    start_rows, seconds = started[0].metric_rows(), json.loads((task.root / "seconds.json").read_text(encoding="utf-8"))
    supervised = read_manifest(task.root / "sft")["summary"]
    entries = {}
    for name, (scores, shares) in methods.items():
        budget = read_manifest(task.root / "rl" / name)["summary"]
        versus = differences(scores.metric_rows(), start_rows, scores.user_N, task.seed)
        entries[name] = {**scores.summary(), **shares, **budget, "versus_start": versus}
    return {
        "references": {name: _reference(row) for name, row in known["metrics"].items()},
        "item_knn_neighbours": known["neighbours"],
        "sids": {"sizes": list(task.catalog.sizes), **load_sids(task.root / "sids").report},
        "sft": {**started[0].summary(), **started[1], **supervised},
        "methods": entries,
        "paper_all_zero": PAPER_ALL_ZERO,
        "group_size": task.config.evaluation.group_size,
        "test_prompts": len(task.test),
        "test_users": len(np.unique(task.test.user_N)),
        "seeds": 1,
        "seconds": {**seconds, "total": sum(seconds.values())},
    }


def _reference(row: dict[str, Any]) -> dict[str, Any]:
    """A reference in the shape of a model: it samples nothing."""
    nothing = dict.fromkeys(("pass_at_1_sampled", "pass_at_1_greedy", "all_zero"))
    return {**row["seen_filtered"], "unfiltered": row["unfiltered"], **nothing}


def _open(path: Path, kind: str, config: dict[str, Any], seed: int, resume: bool) -> RunWriter | None:
    """A writer for a new or unfinished run, None for a complete one of the same config."""
    if not (path / "manifest.json").exists():
        return RunWriter.create(path, kind, config, seed)
    manifest = read_manifest(path)
    if not resume:
        raise RunError(f"{path}: holds a run already; choose another --out or add --resume")
    if manifest["status"] != "complete":
        return RunWriter.resume(path, config, seed)
    if manifest["seed"] != seed or manifest["config"] != json.loads(json.dumps(config, default=str)):
        raise RunError(f"{path}: is complete, with another config or seed; choose another --out")
    return None


def _close(writer: RunWriter, model: SidModel, summary: dict[str, Any]) -> None:
    """The model first: a run that says complete has one."""
    with atomic_directory(writer.path / "model") as temporary:
        save_state(temporary, model)
    writer.close(summary=summary)


def _teller(task: Task, label: str, total: int) -> Callable[[int], None]:
    return lambda done: task.report(label, done, total)
