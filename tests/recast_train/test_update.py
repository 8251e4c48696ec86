"""The packed update against the plain path, on-policy and off-policy, and which rows reach a forward pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor

from recast_sim.signal import ObjectiveConfig, Signal, construct, plan_objective
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.packed import packed_logprobs, packed_tokens, repeated_logprobs
from recast_train.update import update

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
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_the_step_is_that_of_the_plain_objective(constructor: str, kl: float) -> None:
    model, prompts, leaves = world()
    reference, (twin, _, _) = tiny_model(tiny_catalog(), 9, scale=3.0), world()
    plan, objective = signal(constructor).plan, ObjectiveConfig(kl=kl)
    leaf_N, prompt_N = leaves[plan.rows_N], plan.rows_N // G
    log = update(model, reference, prompts, plan, leaf_N, G, torch.optim.SGD(model.parameters(), lr=0.1), objective)
    new_NL = repeated_logprobs(twin, prompts, prompt_N, leaf_N)
    with torch.no_grad():
        reference_NL = repeated_logprobs(reference, prompts, prompt_N, leaf_N)
    expected = plan_objective(plan, new_NL, new_NL.detach(), reference_NL, objective)
    gradient = gradients(twin, expected.loss)
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert log["loss"] == pytest.approx(expected.loss.item(), rel=1e-4, abs=1e-6)
    assert log["kl"] == pytest.approx(expected.kl, rel=1e-3)
    norm = float(torch.stack([grad.norm() for grad in gradient.values()]).norm())
    assert log["gradient_norm"] == pytest.approx(norm, rel=1e-3)
    assert norm > 0.01
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def forwards(model: SidModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, positions) of every forward pass of a model from here on."""
    seen: list[tuple[int, int]] = []
    plain = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, *rest: seen.append(tuple(tokens.shape)) or plain(tokens, *rest))
    return seen


@pytest.mark.parametrize(("updates", "kl", "passes", "reference_passes"), [(1, 0.0, 1, 0), (3, 0.0, 4, 0), (1, 0.1, 1, 1)])
def test_only_kept_rows_are_computed(
    updates: int, kl: float, passes: int, reference_passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, leaves = world()
    reference = tiny_model(tiny_catalog(), 9)
    plan = signal("boundary_only").plan
    kept, width = len((plan.rows_N // G).unique()), prompts.take((plan.rows_N // G).unique()).tokens_PT.shape[1]
    assert 0 < kept < P
    assert len(plan.rows_N) == 2 * kept
    seen, by_reference = forwards(model, monkeypatch), forwards(reference, monkeypatch)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    log = update(model, reference, prompts, plan, leaves[plan.rows_N], G, optimiser, ObjectiveConfig(kl=kl), updates)
    # a group's sequence is its prompt once, and two tokens of each of its two rows
    assert seen == [(kept, width + 2 * 2)] * passes
    assert by_reference == [(kept, width + 2 * 2)] * reference_passes
    real = int(prompts.length_P[(plan.rows_N // G).unique()].sum()) + 2 * len(plan.rows_N)
    assert packed_tokens(model, prompts, plan.rows_N // G) == real
    assert log["actor_tokens"] == updates * real


def test_more_updates_are_off_policy_and_clip() -> None:
    model, prompts, leaves = world()
    plan = signal("recast").plan
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    one = update(model, model, prompts, plan, leaves[plan.rows_N], G, optimiser, ObjectiveConfig())
    more = update(model, model, prompts, plan, leaves[plan.rows_N], G, optimiser, ObjectiveConfig(), updates=4)
    assert one["clip_share"] == 0.0
    assert more["clip_share"] > 0.0


def test_a_plan_without_rows_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, leaves = world()
    nothing = construct("boundary_only", torch.zeros(P, G), torch.zeros(P, G)).plan
    before = [p.clone() for p in model.parameters()]
    seen = forwards(model, monkeypatch)
    log = update(model, model, prompts, nothing, leaves[:0], G, torch.optim.SGD(model.parameters(), lr=1.0), ObjectiveConfig())
    assert set(log.values()) == {0}
    assert seen == []
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model, prompts, leaves = world()
    plan = signal("recast").plan
    broken = replace(plan, advantages_N=plan.advantages_N * torch.inf)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(TrainError, match="lower learning_rate"):
        update(
            model,
            model,
            prompts,
            broken,
            leaves[plan.rows_N],
            G,
            torch.optim.SGD(model.parameters(), lr=1.0),
            ObjectiveConfig(),
        )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
