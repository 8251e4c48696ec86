"""Stages that leave their result in a folder: supervised start, RL, evaluation. Done ones are read, killed ones go on."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recast_sim.runs import RunError, RunWriter, atomic_directory, derive_seed, write_json
from recast_sim.runs.checkpoint import load_state, save_state
from recast_sim.runs.reader import read_manifest
from recast_train.evaluate import (
    EvaluationConfig,
    PromptScores,
    expected_all_zero,
    sampled_regimes,
    score_prompts,
    target_logprobs,
)
from recast_train.methods import Method
from recast_train.model import SidModel, build_model
from recast_train.rl import RlConfig, train_prompts, train_rl
from recast_train.sft import train_sft
from recast_train.task import Task, sample_prompts


def supervised(task: Task) -> SidModel:
    """The supervised start."""
    config, folder = task.config, task.root / "sft"
    model = build_model(task.catalog, config.model, task.seed).to(config.device)
    settings = {"training": asdict(config.sft), "model": asdict(config.model)}
    writer = open_stage(folder, "real-sft", settings, task.seed, resume=True)
    if writer is not None:
        tell = _teller(task, "supervised training", config.sft.steps)
        data = (task.catalog, task.dataset, task.validation)
        summary = train_sft(model, *data, config.sft, derive_seed(task.seed, "sft"), writer, tell)
        _close(writer, model, summary)
    load_state(folder / "model", model)
    return model


def reinforced(task: Task, method: Method, settings: RlConfig, folder: Path) -> SidModel:
    """The model after a method's training from the supervised start. One seed for all methods: they see the same prompts."""
    model = build_model(task.catalog, task.config.model, task.seed).to(task.config.device)
    load_state(task.root / "sft" / "model", model)
    described = {"training": {"constructor": method.constructor.name, **asdict(settings)}}
    writer = open_stage(folder, "real-rl", described, task.seed, resume=True)
    if writer is not None:
        tell = _teller(task, method.name, settings.steps)
        thought, seed = settings.rollout.thought.max_tokens > 0, derive_seed(task.seed, "rl")
        train = train_prompts(task.train, task.catalog, model.vocabulary, thought)
        name = method.constructor.name
        budget = train_rl(model, task.catalog, train, task.validation, name, settings, seed, writer, tell)
        _close(writer, model, budget)
    load_state(folder / "model", model)
    return model


def evaluated(task: Task, name: str, folder: Path, model: SidModel) -> tuple[PromptScores, dict[str, float]]:
    """Scores of the test prompts and the shares of groups by hits; read where they are there already."""
    where = folder / "evaluation"
    if not where.exists():
        scores, shares = _evaluate(task, name, model, task.config.evaluation)
        with atomic_directory(where) as temporary:
            columns = {key: np.ascontiguousarray(row) for key, row in scores.columns().items()}
            save_file(columns, temporary / "scores.safetensors")
            write_json(temporary / "shares.json", shares)
    try:
        found: dict[str, Any] = load_file(where / "scores.safetensors")
        return PromptScores(**found), json.loads((where / "shares.json").read_text(encoding="utf-8"))
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
        **sampled_regimes(model, task.catalog, some, config, task.seed),
        "all_zero_expected_train": expected_all_zero(probability, config.group_size),
        "all_zero_expected_test": expected_all_zero(scores.probability_N, config.group_size),
    }
    return scores, shares


def open_stage(path: Path, kind: str, config: dict[str, Any], seed: int, resume: bool) -> RunWriter | None:
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
