"""Stages that leave their result in a folder: supervised start, RL, evaluation. Done ones are read, killed ones go on."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from recast_sim.bounded import read_json_file
from recast_sim.comparing import Method
from recast_sim.runs import RunError, RunWriter, atomic_directory, derive_seed, write_json
from recast_sim.runs.model_state import load_state, read_tensors, save_tensors
from recast_sim.runs.reader import read_manifest
from recast_sim.runs.writer import latest_step, lost_tables, same_config
from recast_train.data import Prompts, sample_prompts
from recast_train.engine import Recorder, State
from recast_train.engine.sinks import Sink, open_sink
from recast_train.evaluate import (
    EvaluationConfig,
    PromptScores,
    expected_all_zero,
    sampled_regimes,
    score_over_ranks,
    target_logprobs_over_ranks,
)
from recast_train.model import SidModel, build_model, require
from recast_train.pipeline.given_start import start_hash, start_weights
from recast_train.pipeline.made_from import MADE_FROM, Hashes, digest, of_prompts, of_run, refuse_stale
from recast_train.pipeline.run_task import Task, read_json
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.rl_loop import train_prompts, train_rl
from recast_train.sharpening import Seen, learning_scores
from recast_train.supervised.sft_config import SftConfig
from recast_train.supervised.train import train_sft


def supervised(task: Task) -> SidModel:
    """The supervised start."""
    config, folder = task.config, task.root / "sft"
    given = {} if config.start is None else {"weights": start_hash(config.start)}
    settings = {"training": asdict(config.sft), "model": asdict(config.model), MADE_FROM: task.made_from | given}
    recorder = _recorder(task, folder, "real-sft", settings)
    if recorder is not None:
        model = build_model(task.catalog, config.model, task.seed)
        if config.start is not None:
            load_state(start_weights(config.start), model)
        tell = _teller(task, "supervised training", config.sft.last)
        data = (task.catalog, task.dataset, task.validation, config.sft, derive_seed(task.seed, "sft"))
        start = _start(task, model)
        state, summary = train_sft(task.engine, model, *data, recorder, tell)
        recorder.close(state, {**summary, "start": start})
    return trained_stage(task, folder)


def supervised_from(task: Task, settings: SftConfig, folder: Path, seed: int) -> SidModel:
    """The model after supervision that goes on from the supervised start."""
    made_from = task.made_from | {"start": task.engine.on_main(lambda: of_run(task.root / "sft"))}
    config = {"training": asdict(settings), MADE_FROM: made_from}
    recorder = _recorder(task, folder, "real-sft", config)
    if recorder is not None:
        model = trained_stage(task, task.root / "sft")
        data = (task.catalog, task.dataset, task.validation, settings, seed)
        recorder.close(*train_sft(task.engine, model, *data, recorder, _teller(task, folder.name, settings.last)))
    return trained_stage(task, folder)


def _start(task: Task, model: SidModel) -> str:
    """What the model that the methods start from is: only one that was trained here is called supervised."""
    if task.config.sft.steps:
        return "supervised"
    if task.config.start is not None:
        return "given"
    whole = task.config.model.checkpoint is not None and not model.vocabulary.added
    return "checkpoint" if whole else "untrained"


def reinforced(task: Task, method: Method, settings: RlConfig, folder: Path) -> SidModel:
    """The model after a method's training from the supervised start. One seed for all methods: they see the same prompts."""
    name = method.constructor.name
    made_from = task.made_from | {"start": task.engine.on_main(lambda: of_run(task.root / "sft"))}
    config = {"training": {"constructor": name, **asdict(settings)}, MADE_FROM: made_from}
    recorder = _recorder(task, folder, "real-rl", config)
    if recorder is not None:
        model = trained_stage(task, task.root / "sft")
        tell = _teller(task, method.name, settings.steps)
        thought, seed = settings.rollout.thought.max_tokens > 0, derive_seed(task.seed, "rl")
        train = train_prompts(_prompts(task, settings), task.catalog, model.vocabulary, thought)
        data = (task.catalog, train, task.validation, name, settings, seed)
        recorder.close(*train_rl(task.engine, model, *data, recorder, tell))
    return trained_stage(task, folder)


def _prompts(task: Task, settings: RlConfig) -> Prompts:
    """The prompts that a method is trained on."""
    asked = task.train if settings.prompts == "train" else task.held_back
    require(asked is not None, "RlConfig.prompts", repr(settings.prompts), "needs data.held_back above 0")
    assert asked is not None
    return sample_prompts(asked, settings.train_prompts or len(asked), task.seed, "prompts of RL")


def _recorder(task: Task, folder: Path, kind: str, config: dict[str, Any]) -> Recorder | None:
    def start() -> RunWriter | None:
        return open_stage(folder, kind, config, task.seed, resume=True)

    def sink(writer: RunWriter) -> Sink | None:
        return open_sink(task.sink, task.root, folder, writer.manifest, latest_step(folder))

    return Recorder.open(task.engine, folder, start, sink)


def trained_stage(task: Task, folder: Path) -> SidModel:
    """The plain model that a stage has left, on every rank."""
    model, state = build_model(task.catalog, task.config.model, task.seed), State()

    def read() -> None:
        nonlocal state
        state = State(read_tensors(folder / "model", optimiser=False, delete=folder)[0])

    task.engine.on_main(read)
    model = model.to(task.engine.device)
    task.engine.load(state, model)
    return model


def evaluated(task: Task, name: str, folder: Path, model: SidModel) -> None:
    """Leave scores of the test prompts and shares of groups by hits below a stage's folder, unless they are there already."""
    where, note = folder / "evaluation", f"{MADE_FROM}.json"

    def done() -> bool:
        if not where.exists():
            return False
        refuse_stale(where, read_json(where / note, where) if (where / note).exists() else None, _evaluated_from(task, folder))
        return True

    if task.engine.on_main(done):
        return
    scores, shares = _evaluate(task, name, model, task.config.evaluation)
    started = task.root / "sft"
    start = model if folder == started or not task.config.evaluation.learning_prompts else trained_stage(task, started)

    def write() -> None:
        with atomic_directory(where) as temporary:
            save_tensors(temporary / "scores.safetensors", _tensors(scores.columns()))
            write_json(temporary / "shares.json", shares)
            write_json(temporary / note, _evaluated_from(task, folder))
            if task.config.evaluation.learning_prompts:
                found = _learning(task, model, start)
                rows = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
                save_tensors(temporary / "learning.safetensors", _tensors(rows))
                write_json(
                    temporary / "learning.json", {key: float(np.mean(value)) for key, value in found.items() if key != "user"}
                )

    task.engine.on_main(write)


def _evaluated_from(task: Task, folder: Path) -> Hashes:
    test, settings = of_prompts(task.test), digest(asdict(task.config.evaluation))
    return task.made_from | {"test prompts": test, "evaluation settings": settings, "model": of_run(folder)}


def _learning(task: Task, model: SidModel, start: SidModel) -> dict[str, Any]:
    """`learning_scores` on some test prompts, with their users."""
    config = task.config.evaluation
    asked, fitted = (
        sample_prompts(prompts, config.learning_prompts, task.seed, f"learning, {split}")
        for split, prompts in (("test", task.test), ("validation", task.validation))
    )
    seed = derive_seed(task.seed, "learning")
    of_test = [Seen.of(own, task.catalog, asked, config, seed) for own in ((model,) if start is model else (model, start))]
    found = learning_scores(of_test[0], of_test[-1], Seen.of(model, task.catalog, fitted, config, seed))
    return {"user": asked.user_N, **found}


def _tensors(columns: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.ascontiguousarray(row)) for key, row in columns.items()}


def read_learning(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, float]] | None:
    """`learning_scores` of each prompt, with its `user`, and their means; None where none were asked for."""
    where = folder / "evaluation"
    if not (where / "learning.json").exists():
        return None
    try:
        return load_file(where / "learning.safetensors"), read_json_file(where / "learning.json", RunError)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{where}: not readable: {error}; delete {where}, then --resume makes it anew") from error


def read_evaluation(folder: Path) -> tuple[PromptScores, dict[str, float]]:
    """What `evaluated` left below a stage's folder. Raises RunError where it is damaged."""
    where = folder / "evaluation"
    try:
        found: dict[str, Any] = load_file(where / "scores.safetensors")
        return PromptScores(**found), read_json_file(where / "shares.json", RunError)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunError(f"{where}: not readable: {error}; delete {where}, then --resume makes it anew") from error


def _evaluate(task: Task, name: str, model: SidModel, config: EvaluationConfig) -> tuple[PromptScores, dict[str, float]]:
    done, tell = 0, _teller(task, f"evaluating {name}", len(task.test))

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        tell(done)

    scores = score_over_ranks(task.engine, model, task.catalog, task.test, config, on_batch)
    some = sample_prompts(task.train, config.train_prompts, task.seed, "train prompts")
    probability = np.exp(target_logprobs_over_ranks(task.engine, model, task.catalog, some))
    shares = {
        **sampled_regimes(model, task.catalog, some, config, task.seed),
        "all_zero_expected_train": expected_all_zero(probability, config.group_size),
        "all_zero_expected_test": expected_all_zero(scores.probability_N, config.group_size),
    }
    return scores, shares


def open_stage(path: Path, kind: str, config: dict[str, Any], seed: int, resume: bool) -> RunWriter | None:
    """A writer for a new or unfinished run, or one whose tables are gone; None for a complete one of the same config."""
    if not (path / "manifest.json").exists():
        return RunWriter.create(path, kind, config, seed)
    manifest = read_manifest(path)
    if not resume:
        raise RunError(f"{path}: holds a run already; choose another --out or add --resume")
    if MADE_FROM in config:
        refuse_stale(path, manifest["config"].get(MADE_FROM), config[MADE_FROM])
    if manifest["status"] != "complete" or lost_tables(path, manifest):
        return RunWriter.resume(path, config, seed)
    same_config(path, manifest, config, seed)
    return None


def _teller(task: Task, label: str, total: int) -> Callable[[int], None]:
    return lambda done: task.report(label, done, total)
