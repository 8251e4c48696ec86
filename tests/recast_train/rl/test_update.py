"""The packed update against the plain path, on- and off-policy, whole and in mini-batches; which rows reach a pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor
from updating import update

from recast_sim.signal import ObjectiveConfig, Signal, UpdatePlan, construct, plan_objective
from recast_train.engine import Engine, OwnRows, split_plan
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.model.shared_prompts import packed_logprobs, repeated_logprobs, sid_prefixes
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.update import Passes

P, G = 5, 6


def signal(constructor: str, seed: int = 0) -> Signal:
    rng = np.random.default_rng(seed)
    rewards = (rng.random((P, G)) < 0.15).astype(np.float32)
    rewards[0], rewards[1, :2] = 0.0, (1.0, 0.0)
    structural = np.where(rewards > 0, 1.0, rng.choice([0.0, 0.01, 0.1], (P, G)))
    return construct(constructor, rewards, structural, has_anchor_P=torch.ones(P, dtype=torch.bool))


def world(seed: int = 0) -> tuple[SidModel, PromptTokens, Tensor]:
    catalog = tiny_catalog()
    leaves = torch.from_numpy(np.random.default_rng(seed).integers(0, catalog.leaves, P * G))
    return tiny_model(catalog, seed, scale=3.0), tiny_prompts(catalog, P, seed=seed), leaves


def own(plan: UpdatePlan) -> OwnRows:
    return split_plan(plan, G, slice(0, P))


def sgd(model: SidModel, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate)


def same(a: SidModel, b: SidModel, tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def part_of(plan: UpdatePlan, rows: Tensor) -> UpdatePlan:
    return replace(plan.take(rows), normaliser=plan.normaliser * len(rows) / len(plan.rows_N))


def gradients(model: SidModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.sampled_from([(4, 3, 5), (6, 4), (20,), (2, 3, 2, 3)]), st.integers(1, 6), st.data())
def test_packed_equals_plain_in_value_and_gradient(
    seed: int, sizes: tuple[int, ...], prompts: int, data: st.DataObject
) -> None:
    catalog = tiny_catalog(18, sizes, seed)
    model, tokens = tiny_model(catalog, seed, scale=3.0), tiny_prompts(catalog, prompts, seed=seed)
    rows = data.draw(st.lists(st.integers(0, prompts - 1), min_size=1, max_size=9).map(sorted))
    prompt_N, leaf_N = torch.tensor(rows), torch.from_numpy(np.random.default_rng(seed).integers(0, 18, len(rows)))
    weight = torch.linspace(-1.0, 1.3, len(rows))[:, None]
    packed, plain = (path(model, tokens, prompt_N, leaf_N) for path in (packed_logprobs, repeated_logprobs))
    assert torch.allclose(packed, plain, rtol=1e-4, atol=1e-5)
    ours, oracle = gradients(model, (weight * packed).sum()), gradients(model, (weight * plain).sum())
    scale = max(float(grad.norm()) for grad in oracle.values())
    assert scale > 0
    assert ours.keys() == oracle.keys()
    for name, grad in oracle.items():
        assert float((ours[name] - grad).norm()) <= 1e-4 * max(float(grad.norm()), 1e-2 * scale)


@pytest.mark.parametrize("constructor", ["grpo", "recast", "sft_hard_negative", "max_rl"])
@pytest.mark.parametrize(("kl", "temperature"), [(0.0, 1.0), (0.1, 1.0), (0.1, 1.7)])
def test_the_step_is_that_of_the_plain_objective(constructor: str, kl: float, temperature: float, engine: Engine) -> None:
    model, prompts, leaves = world()
    reference, (twin, _, _) = tiny_model(tiny_catalog(), 9, scale=3.0), world()
    plan, objective = signal(constructor).plan, ObjectiveConfig(kl=kl)
    leaf_N, prompt_N = leaves[plan.rows_N], plan.rows_N // G
    passes = Passes(objective)
    log = update(engine, model, reference, prompts, own(plan), leaf_N, G, sgd(model, 0.1), passes, temperature)
    new_NL = repeated_logprobs(twin, prompts, prompt_N, leaf_N, temperature)
    with torch.no_grad():
        reference_NL = repeated_logprobs(reference, prompts, prompt_N, leaf_N, temperature)
    expected = plan_objective(plan, new_NL, new_NL.detach(), reference_NL, objective)
    gradient = gradients(twin, expected.loss)
    sgd(twin, 0.1).step()
    assert log["loss"] == pytest.approx(expected.loss.item(), rel=1e-4, abs=1e-6)
    assert log["kl"] == pytest.approx(expected.kl, rel=1e-3)
    norm = float(torch.stack([grad.norm() for grad in gradient.values()]).norm())
    assert log["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert log["optimiser_steps"] == 1
    assert norm > 0.01
    assert same(model, twin)


def test_a_longer_gradient_is_cut(engine: Engine) -> None:
    (model, prompts, leaves), (before, _, _) = world(), world()
    plan = signal("recast").plan
    passes = Passes(ObjectiveConfig(), max_norm=0.01)
    log = update(engine, model, None, prompts, own(plan), leaves[plan.rows_N], G, sgd(model, 1.0), passes)
    moved = [(a - b).detach().norm() for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert log["gradient_norm"] > 0.02
    assert float(torch.stack(moved).norm()) == pytest.approx(0.01, rel=1e-3)


def forwards(model: SidModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, positions) of every forward pass of a model from here on."""
    seen: list[tuple[int, int]] = []
    plain = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, *rest: seen.append(tuple(tokens.shape)) or plain(tokens, *rest))
    return seen


@pytest.mark.parametrize(("updates", "kl", "passes", "reference_passes"), [(1, 0.0, 1, 0), (3, 0.0, 4, 0), (1, 0.1, 1, 1)])
def test_only_kept_rows_are_computed(
    updates: int, kl: float, passes: int, reference_passes: int, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, leaves = world()
    reference = tiny_model(tiny_catalog(), 9)
    plan = signal("boundary_only").plan
    kept, width = len((plan.rows_N // G).unique()), prompts.take((plan.rows_N // G).unique()).tokens_PT.shape[1]
    assert 0 < kept < P
    assert len(plan.rows_N) == 2 * kept
    seen, by_reference = forwards(model, monkeypatch), forwards(reference, monkeypatch)
    several = Passes(ObjectiveConfig(kl=kl), updates)
    log = update(engine, model, reference, prompts, own(plan), leaves[plan.rows_N], G, sgd(model, 0.01), several)
    # a group's sequence is its prompt once, and the distinct prefixes of its two rows: two tokens of each at most
    codes = model.table("leaf_codes")[leaves[plan.rows_N]].tolist()
    prefixes = [
        {(*row[:1],) for row in pair} | {(*row[:2],) for row in pair} for pair in zip(codes[::2], codes[1::2], strict=True)
    ]
    distinct = [len(found) for found in prefixes]
    assert min(distinct) < max(distinct) == 4
    assert seen == [(kept, width + 4)] * passes
    assert by_reference == [(kept, width + 4)] * reference_passes
    real = int(prompts.length_P[(plan.rows_N // G).unique()].sum()) + sum(distinct)
    assert sid_prefixes(model, plan.rows_N // G, leaves[plan.rows_N]).tokens(prompts.length_P) == real
    assert log["actor_tokens"] == updates * real
    assert log["optimiser_steps"] == updates
    assert (log["seconds_old"] > 0) == (updates > 1)


def test_more_updates_are_off_policy_and_clip(engine: Engine) -> None:
    model, prompts, leaves = world()
    plan, optimiser = signal("recast").plan, sgd(model, 0.5)
    rows, leaf_N = own(plan), leaves[plan.rows_N]
    one = update(engine, model, None, prompts, rows, leaf_N, G, optimiser, Passes(ObjectiveConfig()))
    more = update(engine, model, None, prompts, rows, leaf_N, G, optimiser, Passes(ObjectiveConfig(), updates=4))
    assert one["clip_share"] == 0.0
    assert more["clip_share"] > 0.0


class Watched:
    """The losses of an engine's optimiser steps, and the clip share of the objective behind each."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loss: list[float] = []
        self.clip_share: list[float] = []
        self.rows: list[int] = []
        step, objective = engine.step, OwnRows.objective

        def watched_step(*arguments: object) -> tuple[float, float]:
            loss, norm = step(*arguments)  # type: ignore[arg-type]
            self.loss.append(loss)
            return loss, norm

        def watched_objective(rows: OwnRows, *arguments: object) -> object:
            result = objective(rows, *arguments)  # type: ignore[arg-type]
            self.clip_share.append(result.clip_share)
            self.rows.append(rows.count)
            return result

        monkeypatch.setattr(engine, "step", watched_step)
        monkeypatch.setattr(OwnRows, "objective", watched_objective)


@pytest.mark.parametrize("count", [2, 3])
def test_losses_of_mini_batches_add_up(count: int, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, leaves = world()
    plan, reference = signal("recast").plan, tiny_model(tiny_catalog(), 9, scale=3.0)
    rows, leaf_N, objective = own(plan), leaves[plan.rows_N], ObjectiveConfig(kl=0.1)
    still, watched = sgd(model, 0.0), Watched(engine, monkeypatch)  # a rate of 0: all mini-batches are of one policy
    log = update(engine, model, reference, prompts, rows, leaf_N, G, still, Passes(objective, mini_batches=count))
    parts = list(zip(watched.loss, watched.rows, strict=True))
    whole = update(engine, model, reference, prompts, rows, leaf_N, G, still, Passes(objective))
    assert len(parts) == log["optimiser_steps"] == count
    assert sum(size for _, size in parts) == len(plan.rows_N)
    assert max(size for _, size in parts) - min(size for _, size in parts) <= count
    assert sum(loss * size for loss, size in parts) / len(plan.rows_N) == pytest.approx(whole["loss"], rel=1e-4)
    assert log["loss"] == parts[-1][0] != pytest.approx(whole["loss"], rel=1e-2)


@pytest.mark.parametrize(("updates", "count"), [(1, 3), (2, 2)])
def test_mini_batches_are_steps_of_the_plain_objective(updates: int, count: int, engine: Engine) -> None:
    (model, prompts, leaves), (twin, _, _) = world(), world()
    plan, objective = signal("recast").plan, ObjectiveConfig()
    leaf_N, prompt_N, optimiser = leaves[plan.rows_N], plan.rows_N // G, sgd(twin, 0.3)
    passes = Passes(objective, updates, count)
    log = update(engine, model, None, prompts, own(plan), leaf_N, G, sgd(model, 0.3), passes)
    with torch.no_grad():
        old_NL = repeated_logprobs(twin, prompts, prompt_N, leaf_N)
    found = []
    for part in list(torch.arange(len(leaf_N)).chunk(count)) * updates:
        new_NL = repeated_logprobs(twin, prompts, prompt_N[part], leaf_N[part])
        found.append(plan_objective(part_of(plan, part), new_NL, old_NL[part], None, objective))
        gradients(twin, found[-1].loss)
        optimiser.step()
    assert log["loss"] == pytest.approx(found[-1].loss.item(), rel=1e-3)
    assert log["clip_share"] == pytest.approx(found[-1].clip_share)
    assert log["optimiser_steps"] == updates * count
    assert same(model, twin, 1e-4)


def test_mini_batches_clip_from_the_second_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, leaves = world()
    plan, watched = signal("grpo").plan, Watched(engine, monkeypatch)
    passes = Passes(ObjectiveConfig(), mini_batches=3)
    update(engine, model, None, prompts, own(plan), leaves[plan.rows_N], G, sgd(model, 0.5), passes)
    assert watched.clip_share[0] == 0.0
    assert min(watched.clip_share[1:]) > 0.0


def test_more_mini_batches_than_rows_take_a_step_a_row(engine: Engine) -> None:
    model, prompts, leaves = world()
    plan = signal("boundary_only").plan
    passes = Passes(ObjectiveConfig(), mini_batches=100)
    log = update(engine, model, None, prompts, own(plan), leaves[plan.rows_N], G, sgd(model, 0.01), passes)
    assert log["optimiser_steps"] == len(plan.rows_N)
    with pytest.raises(TrainError, match=r"RlConfig\.mini_batches: 0 must be at least 1"):
        RlConfig(mini_batches=0)


def test_a_plan_without_rows_does_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    (model, prompts, leaves), (before, _, _) = world(), world()
    nothing = construct("boundary_only", torch.zeros(P, G), torch.zeros(P, G)).plan
    seen = forwards(model, monkeypatch)
    passes = Passes(ObjectiveConfig(), 2, 2)
    log = update(engine, model, model, prompts, own(nothing), leaves[:0], G, sgd(model, 1.0), passes)
    assert set(log.values()) == {0}
    assert seen == []
    assert same(model, before, 0.0)


def test_a_loss_that_is_not_finite_is_refused(engine: Engine) -> None:
    (model, prompts, leaves), (before, _, _) = world(), world()
    plan = signal("recast").plan
    broken = own(replace(plan, advantages_NL=plan.advantages_NL * torch.inf))
    with pytest.raises(TrainError, match="lower learning_rate"):
        update(engine, model, None, prompts, broken, leaves[plan.rows_N], G, sgd(model, 1.0), Passes(ObjectiveConfig()))
    assert same(model, before, 0.0)
