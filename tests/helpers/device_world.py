"""What runs on the pretended device, beside the CPU: each check is one function of a device, and both results must agree.

As a script, in a process of its own: `device_world.py GROUP FILE` leaves what a group of checks found (`run_group`);
`device_world.py steps` prints what a step dispatches and what it waits for.
"""

import copy
import gc
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import pretend_device
import torch
from pretend_device import DeviceMismatch, Trace, pretending, to_cpu
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

CPU = torch.device("cpu")
Check = Callable[[torch.device], Any]


def compare(check: Check, device: torch.device, rtol: float = 1e-4, atol: float = 1e-5) -> Trace:
    """What a check asked of the device; AssertionError where it finds something else there than on the CPU."""
    wanted, shape = tree_flatten(check(CPU))
    with pretending() as trace:
        found = tree_flatten(to_cpu(check(device)))
    assert found[1] == shape, f"another structure: {found[1]} against {shape}"
    assert wanted, "nothing to compare"
    for got, want in zip(found[0], wanted, strict=True):
        if isinstance(want, Tensor):
            assert type(got) is Tensor, f"{type(got)} is none of the device's tensors"
            torch.testing.assert_close(got, want.detach(), rtol=rtol, atol=atol, equal_nan=True)
        elif isinstance(want, float):
            assert np.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True), f"{got} against {want}"
        else:
            assert got == want, f"{got} against {want}"
    return trace


def moved(value: Any, device: torch.device) -> Any:
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)


# the signal module -----------------------------------------------------------------------------------------------------


def signal_checks() -> dict[str, Check]:
    """Every shipped constructor under several rules, the objective and the scores; nothing of transformers."""
    from signal_cases import SHIPPED

    from recast_sim.signal import (
        ObjectiveConfig,
        SignalConfig,
        choose_anchor,
        construct,
        exact_hit,
        get_constructor,
        level_matches,
        plan_objective,
        structural_score,
    )
    from recast_sim.signal.declared import iid_groups

    base = SignalConfig(pods_width=2, pass_k=2)
    mixed = replace(base, tie_rule="random", normaliser="tokens", anchor_weighting="annealed", singleton="raw")
    rules = {"defaults": base, "others": mixed}
    more = {
        "likeliest first": replace(base, tie_rule="highest_logprob", anchor_weighting="clipped"),
        "shaped": replace(base, normaliser="active_rows", anchor_weighting="luffy"),
    }

    def signal(name: str, device: torch.device) -> Any:
        found, G = {}, 8
        batch = iid_groups(G, 0.2, groups=12)
        batch["valid_PG"] = torch.arange(G) < G - torch.arange(12)[:, None] % 3
        length_PG = torch.full((12, G + get_constructor(name).appends), 3).to(device)
        for rule, config in (rules | more if name in ("recast", "care", "grpo") else rules).items():
            ties = torch.Generator().manual_seed(5)  # of the CPU, whose draws any device takes
            made = construct(name, **moved(batch, device), length_PG=length_PG, config=config, generator=ties)
            plan, regime = made.plan, made.regime_after
            columns = (plan.rows_N, plan.advantages_NL, plan.weights_N, plan.anchor_N, plan.coefficients_NL)
            found[rule] = (columns, plan.normaliser, regime.learnable, made.learnable_P, made.hits_after_P, made.anchor_slot_P)
        return found

    def objective(device: torch.device) -> Any:
        plan = construct("grpo", **moved(iid_groups(8, 0.2, groups=6), device)).plan
        numbers = torch.Generator().manual_seed(0)
        new, old, reference = (-torch.rand(len(plan.rows_N), 3, generator=numbers, dtype=torch.float64) for _ in range(3))
        new = new.to(device).requires_grad_()
        result = plan_objective(plan, new, old.to(device), reference.to(device), ObjectiveConfig(kl=0.1))
        result.loss.backward()
        return result.loss, result.kl, result.clip_share, new.grad

    def scores(device: torch.device) -> Any:
        numbers = torch.Generator().manual_seed(0)
        sids = torch.randint(3, (4, 6, 2, 3), generator=numbers).to(device)
        targets = torch.randint(3, (4, 3, 3), generator=numbers).to(device)
        there = (torch.arange(3) < torch.tensor([[3], [2], [1], [0]])).to(device)
        masks = {"sid_mask_PGS": sids[..., 0] > 0, "target_mask_PT": there}
        return [
            structural_score(sids, targets),
            structural_score(sids, targets, **masks, repeats="each", level_scores=(0.0, 0.1, 0.5, 1.0)),
            exact_hit(sids[:, :, 0], targets, there),
            level_matches(sids[:, :, 0], targets),
            level_matches(sids[:, :, 0], targets, prefix=False),
        ]

    def anchors(device: torch.device) -> Any:
        there, logprob = torch.tensor([[True, True], [True, False]]), torch.tensor([[-2.0, -1.0], [-1.0, 0.0]])
        ties = torch.Generator().manual_seed(1)
        rules: tuple[Any, ...] = ("first", "random", "most_likely")
        return [choose_anchor(there.to(device), rule, logprob.to(device), ties) for rule in rules]

    return {
        **{name: lambda device, name=name: signal(name, device) for name in SHIPPED},
        "plan objective": objective,
        "scores": scores,
        "anchors": anchors,
    }


# the trainer -----------------------------------------------------------------------------------------------------------


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
    around = {"begin": (15,), "suffix": (15,), "thought_end": 14} if thinks else {}
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


# the whole recipe, and the adapter -------------------------------------------------------------------------------------


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


# what a step costs, and mistakes ---------------------------------------------------------------------------------------


def steps(device: torch.device) -> dict[str, Trace]:
    """What one step asks of the device, after a first one: caches are filled then."""
    from sid_world import tiny_catalog, tiny_dataset, tiny_model, tiny_prompts

    from recast_sim.signal import ObjectiveConfig, get_constructor
    from recast_train.rl.rl_config import RlConfig
    from recast_train.rl.rl_loop import BUDGET
    from recast_train.rl.rollout_groups import TrainPrompts
    from recast_train.rl.step import Step
    from recast_train.supervised import SftConfig
    from recast_train.supervised.train import _TrainStep
    from recast_train.supervised.windows import Windows

    catalog, found = tiny_catalog(), {}

    def adam(model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    def counted(step: Callable[[int], Any], trace: Trace) -> Trace:
        step(1)
        trace.clear()
        step(2)
        return copy.deepcopy(trace)

    with pretending() as trace, engine_on(device) as engine:
        train = TrainPrompts(tiny_prompts(catalog, 6), torch.arange(6)[:, None])
        plain = RlConfig(group_size=6, prompts_per_step=6, warm_up=0)
        for name, (constructor, config) in {
            "recast": ("recast", plain),
            "recast, KL, 2 updates": ("recast", replace(plain, objective=ObjectiveConfig(kl=0.1), updates_per_batch=2)),
            "grpo": ("grpo", plain),
        }.items():
            model = engine.prepare(tiny_model(catalog, scale=3.0))
            reference = engine.prepare(tiny_model(catalog, 1).requires_grad_(False))
            rest = (get_constructor(constructor), config, 0, adam(model), dict.fromkeys(BUDGET, 0))
            found[name] = counted(Step(engine, model, reference, train, *rest), trace)
        model, config = engine.prepare(tiny_model(catalog)), SftConfig(batch=16, window=5)
        windows = Windows(tiny_dataset(60), 5, 16, 0)
        found["supervised"] = counted(_TrainStep(engine, model, catalog, windows, adam(model), config, 0), trace)
    return found


def mistakes(device: torch.device) -> dict[str, str]:
    """The error of each planted mistake; none where it went through."""
    from sid_world import tiny_catalog, tiny_model, tiny_prompts

    from recast_train.model import PromptTokens, SidModel
    from recast_train.rollout import Part, RolloutConfig, beam, sample_rollouts

    def child_codes(model: SidModel, level: int, node: Tensor) -> tuple[Tensor, Tensor]:
        first, code_N = model.table("first_child", level), model.table("node_code", level + 1)
        start, column_B = first[node][..., None], torch.arange(model.widest[level])  # of the default device
        return code_N[(start + column_B).clamp(max=len(code_N) - 1)], column_B < first[node + 1][..., None] - start

    def uniform(part: Part, shape: Any, axis: int, generator: Any, dtype: Any = torch.float32) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype, device=device)

    def group(model: SidModel, found: Any, *rest: Any) -> Any:
        return model.table("leaf_codes").cpu()[found.node_PW]  # a copy on the CPU, asked by an index of the device

    planted: dict[str, tuple[Any, str, Any]] = {
        "tensor": (PromptTokens, "to", lambda prompts, device: prompts),
        "index": (beam, "_group", group),
        "generator": (Part, "uniform", uniform),
        "default device": (SidModel, "_child_codes", child_codes),
    }
    found = {}
    model, tokens = tiny_model(tiny_catalog()), tiny_prompts(tiny_catalog(), 3)
    with pretending():
        model.to(device)

        def sample() -> None:
            config = RolloutConfig("stochastic_beam")
            sample_rollouts(model, tokens.to(device), 4, torch.Generator().manual_seed(0), config)

        sample()  # nothing is wrong yet
        for name, (owner, method, wrong) in planted.items():
            with mock.patch.object(owner, method, wrong):
                try:
                    sample()
                    found[name] = "nothing was raised"
                except DeviceMismatch as error:
                    found[name] = str(error)
    return found


GROUPS: dict[str, Callable[[], dict[str, Check]]] = {
    "signal": signal_checks,
    "trainer": trainer_checks,
    "trl": trl_checks,
}


def run_group(group: str, device: torch.device) -> dict[str, Any]:
    """What went wrong in each check, and how many operations the device ran; with the trainer what else needs its imports."""
    errors: dict[str, str | None] = {}
    operations = 0
    for name, check in GROUPS[group]().items():
        tolerance = {"rtol": LOOSE[name], "atol": LOOSE[name]} if name in LOOSE else {}
        errors[name] = None
        gc.freeze()  # each prepared model collects garbage, and the imports are most of what there is to look through
        try:
            operations += compare(check, device, **tolerance).dispatched.total()
        except Exception:
            errors[name] = traceback.format_exc()
    found: dict[str, Any] = {"checks": errors, "operations": operations}
    if group == "trainer":
        found["mistakes"] = mistakes(device)
        found["steps"] = {name: trace.waits() for name, trace in steps(device).items()}
    return found


def main(group: str, file: str = "") -> None:
    torch.set_num_threads(1)
    device = pretend_device.install()
    if group == "steps":
        print("\n\n".join(f"{name}\n{trace.told()}" for name, trace in steps(device).items()))
    else:
        Path(file).write_text(json.dumps(run_group(group, device)))


if __name__ == "__main__":
    main(*sys.argv[1:])
