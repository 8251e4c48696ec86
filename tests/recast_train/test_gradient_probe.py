"""The probe against exact gradients of each group, and that it leaves nothing behind."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor

from recast_sim.signal import UpdatePlan, construct
from recast_train.gradient_probe import gradient_figures, probe_gradients, project_gradients
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.packed import repeated_logprobs

P, G = 6, 5
FIGURES = {"gradient_variance", "gradient_norm_squared", "gradient_snr", "cosine_halves"}


def batch(constructor: str = "recast", prompts: int = P) -> tuple[SidModel, PromptTokens, UpdatePlan, Tensor]:
    """A model and a batch whose last group has no target to repair it with; most groups differ in their hits."""
    catalog, rng = tiny_catalog(), np.random.default_rng(1)
    rewards = (rng.random((prompts, G)) < 0.3).astype(np.float32)
    rewards[-1] = 0.0
    structural = np.where(rewards > 0, 1.0, rng.choice([0.0, 0.1], (prompts, G)))
    anchored = torch.arange(prompts) < prompts - 1
    plan = construct(constructor, rewards, structural, has_anchor_P=anchored).plan
    uneven = torch.linspace(0.5, 2.0, len(plan.rows_N))  # as clipped importance weights would be
    leaf_N = torch.from_numpy(rng.integers(0, catalog.leaves, prompts * G))[plan.rows_N]
    model = tiny_model(catalog, 0, scale=3.0)
    return model, tiny_prompts(catalog, prompts), replace(plan, weights_N=uneven), leaf_N


def trainable(model: SidModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def exact_gradients(model: SidModel, prompts: PromptTokens, plan: UpdatePlan, leaf_N: Tensor) -> Tensor:
    """g_p by one backward pass a group over the plain path, (P, D)."""
    rows, parameters = [], trainable(model)
    for p in range(len(prompts.tokens_PT)):
        mine = plan.rows_N // G == p
        if not bool(mine.any()):
            rows.append(torch.zeros(sum(parameter.numel() for parameter in parameters)))
            continue
        logprob_N = repeated_logprobs(model, prompts, plan.rows_N[mine] // G, leaf_N[mine]).sum(1)
        surrogate = (plan.coefficients_N[mine] * logprob_N).sum() * len(prompts.tokens_PT)
        found = torch.autograd.grad(surrogate, parameters, allow_unused=True)
        parts = zip(found, parameters, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in parts]))
    return torch.stack(rows).double()


def directions(model: SidModel, count: int, seed: int) -> Tensor:
    """The probe's directions, (K, D)."""
    generator = torch.Generator().manual_seed(seed)
    draw = [[torch.randn(p.shape, generator=generator).reshape(-1) for p in trainable(model)] for _ in range(count)]
    return torch.stack([torch.cat(parts) for parts in draw]).double()


def tie(model: SidModel) -> None:
    model.lm.lm_head.weight = model.lm.get_input_embeddings().weight


def freeze(model: SidModel) -> None:
    model.lm.get_input_embeddings().weight.requires_grad_(False)


def checkpoint(model: SidModel) -> None:
    renamed = hasattr(model.lm, "activation_checkpointing_enable")  # in transformers after 5.5
    (model.lm.activation_checkpointing_enable if renamed else model.lm.gradient_checkpointing_enable)()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.lm.modules())
    model.lm.train()


def plain(model: SidModel) -> None:
    assert not model.training


def exact_figures(g_PD: Tensor) -> dict[str, float]:
    mean, groups = g_PD.mean(0), len(g_PD)
    cross = [float(g_PD[p] @ g_PD[q]) for p in range(groups) for q in range(groups) if p != q]
    variance = float((g_PD - mean).square().sum()) / (groups - 1)
    even, odd = g_PD[::2].mean(0), g_PD[1::2].mean(0)
    return {
        "gradient_variance": variance,
        "gradient_norm_squared": sum(cross) / len(cross),
        "gradient_snr": sum(cross) / len(cross) / variance * groups,
        "cosine_halves": float(torch.cosine_similarity(even, odd, 0)),
    }


@pytest.mark.parametrize("change", [plain, tie, freeze, checkpoint])
@pytest.mark.parametrize("constructor", ["recast", "grpo"])
def test_projections_are_those_of_the_exact_gradients(constructor: str, change: Callable[[SidModel], None]) -> None:
    model, prompts, plan, leaf_N = batch(constructor)
    change(model)
    g_PD = exact_gradients(model, prompts, plan, leaf_N)
    found_KP = project_gradients(model, prompts, plan, leaf_N, G, 24, generator=torch.Generator().manual_seed(3))
    expected_KP = directions(model, 24, 3) @ g_PD.T
    assert bool((expected_KP[:, :-1] != 0).any(0).sum() >= 3)
    assert torch.equal(found_KP[:, -1], torch.zeros(24, dtype=torch.float64))
    assert torch.allclose(found_KP, expected_KP, rtol=1e-3, atol=1e-4 * float(g_PD.norm(dim=1).max()))


def test_the_mean_over_groups_is_minus_the_gradient_of_the_loss() -> None:
    model, prompts, plan, leaf_N = batch()
    logprob_N = repeated_logprobs(model, prompts, plan.rows_N // G, leaf_N).sum(1)
    loss = -(plan.weights_N * plan.advantages_N * logprob_N).sum() / plan.normaliser
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trainable(model))]).double()
    found_KP = project_gradients(model, prompts, plan, leaf_N, G, 8, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(found_KP.mean(1), -directions(model, 8, 5) @ slope, rtol=1e-3, atol=1e-4 * float(slope.norm()))


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_figures_are_exact_on_a_full_set_of_directions(groups: int) -> None:
    g_PD = torch.randn(groups, 7, generator=torch.Generator().manual_seed(groups), dtype=torch.float64) + 0.5
    # axes of length sqrt(D): the mean over directions of (u . g)^2 is |g|^2
    assert gradient_figures(7**0.5 * g_PD.T) == pytest.approx(exact_figures(g_PD))


def test_figures_by_hand() -> None:
    assert gradient_figures(torch.tensor([[3.0, 1.0]], dtype=torch.float64)) == {
        "gradient_variance": 2.0,
        "gradient_norm_squared": 3.0,
        "gradient_snr": 3.0,
        "cosine_halves": pytest.approx(1.0),
    }
    apart = gradient_figures(torch.tensor([[2.0, -2.0]], dtype=torch.float64))
    assert apart["gradient_norm_squared"] == -4.0
    assert apart["cosine_halves"] == pytest.approx(-1.0)
    same = gradient_figures(torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    assert (same["gradient_variance"], same["gradient_snr"], same["gradient_norm_squared"]) == (0.0, None, 1.0)


def test_figures_are_right_on_average_over_directions() -> None:
    model, prompts, plan, leaf_N = batch()
    exact, K = exact_figures(exact_gradients(model, prompts, plan, leaf_N)), 1024
    projected_KP = project_gradients(model, prompts, plan, leaf_N, G, K, generator=torch.Generator().manual_seed(7))
    one_by_one = [gradient_figures(row_P[None]) for row_P in projected_KP]
    for name in ("gradient_variance", "gradient_norm_squared"):
        values = np.array([figures[name] for figures in one_by_one], dtype=float)
        assert abs(values.mean() - exact[name]) < 4.5 * values.std() / K**0.5
    together = gradient_figures(projected_KP)
    assert together["gradient_variance"] == pytest.approx(np.mean([figures["gradient_variance"] for figures in one_by_one]))
    assert together["cosine_halves"] == pytest.approx(exact["cosine_halves"], abs=4.5 / K**0.5)
    assert exact["gradient_variance"] > 0


def test_a_batch_without_a_kept_row_has_no_gradient() -> None:
    model, prompts, _, leaf_N = batch()
    nothing = construct("boundary_only", torch.zeros(P, G), torch.zeros(P, G)).plan
    found = probe_gradients(model, prompts, nothing, leaf_N[:0], G, generator=torch.Generator())
    zero = {"gradient_variance": 0.0, "gradient_norm_squared": 0.0, "gradient_snr": None, "cosine_halves": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == zero


def test_a_half_without_a_kept_row_has_no_cosine() -> None:
    model, prompts, plan, leaf_N = batch()
    even = plan.rows_N // G % 2 == 0
    columns = {name: getattr(plan, name)[even] for name in ("rows_N", "advantages_N", "weights_N", "anchor_N")}
    half = replace(plan, **columns)
    found = probe_gradients(model, prompts, half, leaf_N[even], G, generator=torch.Generator().manual_seed(0))
    assert found["cosine_halves"] is None
    assert found["gradient_variance"]


def test_one_group_has_no_figure() -> None:
    model, prompts, plan, leaf_N = batch("sft_hard_negative", prompts=2)
    one = plan.rows_N // G == 0
    columns = {name: getattr(plan, name)[one] for name in ("rows_N", "advantages_N", "weights_N", "anchor_N")}
    generator = torch.Generator().manual_seed(0)
    single = prompts.take(slice(0, 1))
    found = probe_gradients(model, single, replace(plan, **columns), leaf_N[one], G, generator=generator)
    assert found == dict.fromkeys(FIGURES)


def test_the_model_and_the_random_state_stay_as_they_are() -> None:
    model, prompts, plan, leaf_N = batch()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    runs = [probe_gradients(model, prompts, plan, leaf_N, G, 4, generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert set(runs[0]) == FIGURES
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None and p.requires_grad for p in list(model.parameters())[1:])


def test_bad_input_is_refused() -> None:
    model, prompts, plan, leaf_N = batch()
    with pytest.raises(TrainError, match="projections: 0 must be at least 1"):
        probe_gradients(model, prompts, plan, leaf_N, G, 0, generator=torch.Generator())
    with pytest.raises(TrainError, match=r"model\.training: True .* call model\.eval\(\)"):
        probe_gradients(model.train(), prompts, plan, leaf_N, G, generator=torch.Generator())
