"""The trainer and the TRL adapter as checks for `device_world`: whole loops on an engine of a given device."""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")
Check = Callable[[torch.device], Any]


@contextmanager
def engine_on(device: torch.device, precision: Literal["fp32", "bf16"] = "fp32") -> Iterator[Any]:
    """An engine of one process on a device: accelerate takes it from the environment."""
    from recast_train.engine import Engine, EngineConfig

    with device_of_accelerate(device), Engine(EngineConfig(precision=precision)) as engine:
        assert engine.device.type == device.type
        yield engine


@contextmanager
def device_of_accelerate(device: torch.device) -> Iterator[None]:
    with mock.patch.dict(os.environ, {} if device == CPU else {"ACCELERATE_TORCH_DEVICE": str(device)}):
        yield


def trainer_checks() -> dict[str, Check]:
    """Rollouts of every kind, training by both loops and evaluations on small models, and a whole recipe."""
    from rollout_cases import wordy_world, world
    from sid_world import questions, tiny_catalog, tiny_dataset, tiny_model

    from recast_sim.signal import ObjectiveConfig, SignalConfig
    from recast_train.evaluate import EvaluationConfig, sampled_regimes, score_prompts, target_logprobs
    from recast_train.rl.rl_config import ThoughtGroups
    from recast_train.rollout import (
        RolloutConfig,
        ThoughtConfig,
        ThoughtMarkers,
        free_logprobs,
        importance_weights,
        sample_rollouts,
        sample_thoughts,
    )
    from recast_train.sharpening import Seen, learning_scores

    def rollouts(method: Literal["iid", "beam", "stochastic_beam"], hints: int, device: torch.device) -> Any:
        _, model, prompts = world((4, 3, 5), 6)
        hint_P = torch.tensor([3, 1, 4, 1, 5, 9]).to(device) if hints else None
        config, draws = RolloutConfig(method, 1.3, hint_levels=hints), torch.Generator().manual_seed(0)
        found = sample_rollouts(model.to(device), prompts.to(device), 4, draws, config, hint_P=hint_P)
        weights = None if found.kappa_P is None else importance_weights(found.logprob_PG, found.kappa_P, found.valid_PG)
        return found.leaf_PG, found.sids_PGL, found.logprobs_PGL, found.valid_PG, found.phi_PG, weights

    def thoughts(device: torch.device) -> Any:
        model, prompts = wordy_world(6)
        markers, draws = ThoughtMarkers(14, (15, 1)), torch.Generator().manual_seed(0)
        longer, found = sample_thoughts(model.to(device), prompts.to(device), ThoughtConfig(5, 1.5), markers, draws)
        behind = sample_rollouts(model, longer, 4, draws)
        hidden = torch.ones(2, 16).to(device)
        return longer.tokens_PT, found.logprobs_PS, found.length_P, behind.leaf_PG, free_logprobs(model, hidden)

    def evaluation(device: torch.device) -> Any:
        catalog = tiny_catalog()
        model, asked = tiny_model(catalog).to(device), questions(catalog, 4)
        config = EvaluationConfig(width=6, batch=3, group_size=6)
        scores = score_prompts(model, catalog, asked, config)
        seen = Seen.of(model, catalog, asked, config, 0)
        learnt = learning_scores(seen, seen, seen)
        figures = {name: torch.as_tensor(np.asarray(row)) for name, row in learnt.items()}
        rows = [torch.from_numpy(row) for row in scores.columns().values()]
        return rows, scores.wider, sampled_regimes(model, catalog, asked, config, 3), figures, logprobs(model, catalog, asked)

    def logprobs(model: Any, catalog: Any, asked: Any) -> Tensor:
        return torch.from_numpy(target_logprobs(model, catalog, asked))

    def supervised(precision: Literal["fp32", "bf16"], device: torch.device) -> Any:
        from recast_train.supervised import SftConfig

        config = SftConfig(steps=2, batch=8, window=5, warm_up=1, evaluate_every=1, validation_prompts=6, label_smoothing=0.1)
        catalog, asked = tiny_catalog(), questions(tiny_catalog(), 8)
        model = tiny_model(catalog, scale=2.0)
        model.dropout.p = 0.2
        return trained_sft(device, precision, model, catalog, tiny_dataset(60), asked, config)

    def reinforced(
        name: str, precision: Literal["fp32", "bf16"], device: torch.device, signal: Any = None, **changes: Any
    ) -> Any:
        return trained_rl(device, precision, name, SignalConfig(**(signal or {})), **changes)

    kl = {"objective": ObjectiveConfig(kl=0.1)}
    twice = {**kl, "updates_per_batch": 2, "mini_batches": 2, "micro_batch_tokens": 60, "max_norm": 1.0, "probe_every": 2}
    beam, hints = RolloutConfig("stochastic_beam"), RolloutConfig(hint_levels=1)
    thinking = RolloutConfig("iid", 2.0, ThoughtConfig(4))
    soft = {**kl, "rollout": thinking, "thoughts": ThoughtGroups("soft", "psr"), "mini_batches": 2, "micro_batch_tokens": 60}
    hard = {"rollout": thinking, "thoughts": ThoughtGroups("hard")}
    most_likely = {"anchor_choice": "most_likely"}
    return {
        "rollouts iid": lambda device: rollouts("iid", 0, device),
        "rollouts behind hints": lambda device: rollouts("iid", 1, device),
        "rollouts beam": lambda device: rollouts("beam", 0, device),
        "rollouts stochastic beam": lambda device: rollouts("stochastic_beam", 0, device),
        "thoughts": thoughts,
        "evaluation": evaluation,
        "supervised": lambda device: supervised("fp32", device),
        "recast, several updates, KL, gradient probe": lambda device: reinforced("recast", "fp32", device, **twice),
        "grpo, stochastic beam": lambda device: reinforced("grpo", "fp32", device, rollout=beam),
        "recast behind thoughts": lambda device: reinforced("recast", "fp32", device, rollout=thinking),
        "rloo on groups of thoughts, two updates, KL": lambda device: reinforced("rloo", "fp32", device, **soft),
        "grpo on groups of thoughts and SIDs": lambda device: reinforced("grpo", "fp32", device, **hard),
        "dapo, redrawn": lambda device: reinforced("dapo", "fp32", device),
        "luffy behind hints, likeliest anchor": lambda device: reinforced("luffy", "fp32", device, most_likely, rollout=hints),
        "bf16 supervised": lambda device: supervised("bf16", device),
        "a recipe, from its data to its results": whole_run,
        "bf16 recast": lambda device: reinforced("recast", "bf16", device, **kl),
    }


LOOSE = {"bf16 supervised": 0.03, "bf16 recast": 0.03}  # attention is another kernel, which rounds otherwise


def trained_sft(device: torch.device, precision: Any, model: Any, catalog: Any, data: Any, asked: Any, config: Any) -> Any:
    """Weights and rows of a supervised run that was stopped after its first checkpoint and resumed."""
    from recast_sim.runs import read_run
    from recast_train.supervised.train import train_sft

    with tempfile.TemporaryDirectory() as folder, engine_on(device, precision) as engine:
        run = Path(folder) / "run"

        def train(stop: int) -> Any:
            return train_sft(
                engine, copy.deepcopy(model), catalog, data, asked, config, 0, recorder(engine, run), stopper(stop)
            )

        try:
            train(1)
        except Stopped:
            state, _ = train(0)
        rows = read_run(run)
        names = ("loss", "gradient_norm")
        return state.model, rows.steps.select(names).to_dict(as_series=False), rows.evals["validation_nll"].to_list()


def trained_rl(device: torch.device, precision: Any, name: str, signal: Any, **changes: Any) -> Any:
    """Weights and rows of an RL run that was stopped after a checkpoint and resumed."""
    from rollout_cases import wordy_world
    from sid_world import questions, tiny_catalog

    from recast_sim.runs import read_run
    from recast_train.rl.rl_config import RlConfig
    from recast_train.rl.rl_loop import train_rl
    from recast_train.rl.rollout_groups import TrainPrompts

    catalog = tiny_catalog()
    model, tokens = wordy_world(6)
    model.vocabulary = replace(model.vocabulary, begin=(15,), thought_end=14)
    train = TrainPrompts(tokens, torch.tensor([[0, 3], [1, -1], [2, 5], [3, -1], [4, 0], [5, -1]]))
    thinks = "rollout" in changes and changes["rollout"].thought.max_tokens
    around = {"begin": (15,), "suffix": (15,), "thought_suffix": (), "thought_end": 14} if thinks else {}
    model.vocabulary = replace(model.vocabulary, **around)
    config = RlConfig(
        **{
            **{"signal": signal, "group_size": 6, "prompts_per_step": 4, "steps": 2, "learning_rate": 0.003, "warm_up": 2},
            **{"evaluate_every": 2, "checkpoint_every": 1, "validation_prompts": 4, "max_draws": 3},
            **changes,
        }
    )
    with tempfile.TemporaryDirectory() as folder, engine_on(device, precision) as engine:
        run, asked = Path(folder) / "run", questions(catalog, 4)

        def go(stop: int) -> Any:
            own = (copy.deepcopy(model), catalog, train, asked, name, config, 0, recorder(engine, run), stopper(stop))
            return train_rl(engine, *own)

        try:
            go(1)
        except Stopped:
            state, totals = go(0)
        rows = read_run(run)
        measured = ("seconds", "actor_tflops", "mfu", "peak")
        steps = rows.steps.select(column for column in rows.steps.columns if not column.startswith(measured))
        return state.model, totals, steps.to_dict(as_series=False), rows.evals.to_dict(as_series=False)


class Stopped(Exception):
    """The run was killed here."""


def stopper(stop: int) -> Callable[[int], None]:
    def on_step(step: int) -> None:
        if step == stop:
            raise Stopped

    return on_step


def recorder(engine: Any, path: Path) -> Any:
    from recast_sim.runs import RunWriter
    from recast_train.engine import Recorder

    there = (path / "manifest.json").exists()
    return Recorder(engine, path, RunWriter.resume(path, {}, 0) if there else RunWriter.create(path, "device", {}, 0))


def whole_run(device: torch.device) -> Any:
    """A tiny recipe from its data to its results, by the command's own function."""
    from pipeline_world import run_spread, untimed, without_seconds, write_recipe

    from recast_sim.runs import read_run

    def shorter(recipe: str) -> str:
        less = {"steps = 24": "steps = 4", "steps = 5": "steps = 2", "evaluate_every = 8": "evaluate_every = 4"}
        for long, short in (less | {"train_prompts = 41": "train_prompts = 9, learning_prompts = 0, prompts = 9"}).items():
            assert long in recipe
            recipe = recipe.replace(long, short)
        return recipe

    with tempfile.TemporaryDirectory() as folder, device_of_accelerate(device):
        recipe = write_recipe(Path(folder), ("recast updates_per_batch=2",), shorter)
        results = without_seconds(run_spread(recipe, "single", Path(folder) / "run"))
        method = next(iter(results["methods"].values()))["folder"]
        steps = untimed(read_run(Path(folder) / "run" / "rl" / method).steps).to_dict(as_series=False)
        return json.loads(json.dumps(results)), steps


def trl_checks() -> dict[str, Check]:
    """The adapter's trainer in TRL's own loop."""
    import trl_world

    folder = Path(tempfile.mkdtemp())
    trl_world.write_checkpoint(folder)

    def change(device: torch.device, **options: Any) -> Any:
        with device_of_accelerate(device):
            run = trl_world.trainer(folder, use_cpu=device == CPU, **options)
            assert run.accelerator.device.type == device.type
            return trl_world.change(run)

    def constrained(device: torch.device) -> Any:
        return change(device, script=None, rollout_func=trl_world.constrained_rollout(trl_world.SIDS))

    return {
        "TRL, recast, KL and two iterations": lambda device: change(device, beta=0.1, num_iterations=2, max_steps=2),
        "TRL, anchor probabilities": lambda device: change(device, constructor="luffy"),
        "TRL, constrained rollouts": constrained,
    }
