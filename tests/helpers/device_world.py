"""What runs on the pretended device, beside the CPU: each check is one function of a device, and both results must agree.

As a script, in a process of its own: `device_world.py GROUP FILE` leaves what a group of checks found (`run_group`);
`device_world.py steps` prints what a step dispatches and what it waits for.
"""

import copy
import gc
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pretend_device
import torch
from device_trainer import CPU, LOOSE, Check, engine_on, trainer_checks, trl_checks
from pretend_device import DeviceMismatch, Trace, pretending, to_cpu
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map


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
