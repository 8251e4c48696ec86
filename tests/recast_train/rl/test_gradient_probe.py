"""The probe against exact gradients of each group, and that it leaves nothing behind."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor

from recast_sim.signal import ObjectiveConfig, UpdatePlan, construct, plan_objective
from recast_train.model import PromptTokens, SidModel, TrainError
from recast_train.model.shared_prompts import repeated_logprobs
from recast_train.rl.gradient_probe import FIGURES, probe_gradients

P, G = 6, 5


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


def exact_gradients(
    model: SidModel, prompts: PromptTokens, plan: UpdatePlan, leaf_N: Tensor, temperature: float = 1.0
) -> Tensor:
    """g_p by one backward pass a group over the plain path, (P, D)."""
    rows, parameters = [], trainable(model)
    for p in range(len(prompts.tokens_PT)):
        mine = plan.rows_N // G == p
        if not bool(mine.any()):
            rows.append(torch.zeros(sum(parameter.numel() for parameter in parameters)))
            continue
        logprob_N = repeated_logprobs(model, prompts, plan.rows_N[mine] // G, leaf_N[mine], temperature).sum(1)
        surrogate = (plan.coefficients_N[mine] * logprob_N).sum() * len(prompts.tokens_PT)
        found = torch.autograd.grad(surrogate, parameters, allow_unused=True)
        parts = zip(found, parameters, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in parts]))
    return torch.stack(rows).double()


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
@pytest.mark.parametrize(("constructor", "temperature"), [("recast", 1.0), ("grpo", 1.0), ("recast", 2.5)])
def test_figures_are_those_of_the_exact_gradients(
    constructor: str, temperature: float, change: Callable[[SidModel], None]
) -> None:
    model, prompts, plan, leaf_N = batch(constructor)
    change(model)
    g_PD = exact_gradients(model, prompts, plan, leaf_N, temperature)
    assert int((g_PD != 0).any(1).sum()) >= 3
    assert not bool(g_PD[-1].any())  # the group without a kept row counts as one of 0
    found = probe_gradients(model, prompts, plan, leaf_N, G, temperature)
    assert found == pytest.approx(exact_figures(g_PD), rel=1e-3, abs=1e-4)


def test_the_temperature_matters() -> None:
    cold, warm = (probe_gradients(*batch(), G, temperature)["gradient_variance"] for temperature in (1.0, 2.5))
    assert cold != pytest.approx(warm, rel=0.1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_mean_over_groups_is_minus_the_gradient_of_the_loss(temperature: float) -> None:
    model, prompts, plan, leaf_N = batch()
    new_NL = repeated_logprobs(model, prompts, plan.rows_N // G, leaf_N, temperature)
    loss = plan_objective(plan, new_NL, new_NL.detach(), None, ObjectiveConfig()).loss
    slope = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trainable(model))]).double()
    found = probe_gradients(model, prompts, plan, leaf_N, G, temperature)
    assert found["gradient_norm_squared"] is not None
    assert found["gradient_variance"] is not None
    of_mean = found["gradient_norm_squared"] + found["gradient_variance"] / P  # the bias that the figure is without
    assert of_mean == pytest.approx(float(slope.square().sum()), rel=1e-3)
    assert torch.allclose(exact_gradients(model, prompts, plan, leaf_N, temperature).mean(0), -slope, atol=1e-4)


@pytest.mark.parametrize(("sign", "cosine"), [(1.0, 1.0), (-1.0, -1.0)])
def test_two_groups_that_agree_or_oppose_each_other(sign: float, cosine: float) -> None:
    model, prompts, plan, leaf_N = batch("sft", prompts=2)
    columns = {
        "rows_N": torch.tensor([0, G]),
        "advantages_NL": torch.tensor([[1.0], [sign]]),
        "weights_N": torch.ones(2),
        "anchor_N": torch.zeros(2, dtype=torch.bool),
    }
    twice = prompts.take(torch.tensor([0, 0]))
    found = probe_gradients(model, twice, replace(plan, **columns), leaf_N[:1].repeat(2), G)
    assert found["cosine_halves"] == pytest.approx(cosine)
    if sign > 0:
        assert (found["gradient_variance"], found["gradient_snr"]) == (0.0, None)
    else:  # |E g|^2 is the product of the two
        assert found["gradient_norm_squared"] == pytest.approx(-(found["gradient_variance"] or 0.0) / 2)


def test_a_batch_without_a_kept_row_has_no_gradient() -> None:
    model, prompts, _, leaf_N = batch()
    nothing = construct("boundary_only", torch.zeros(P, G), torch.zeros(P, G)).plan
    found = probe_gradients(model, prompts, nothing, leaf_N[:0], G)
    zero = {"gradient_variance": 0.0, "gradient_norm_squared": 0.0, "gradient_snr": None, "cosine_halves": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == zero


def test_a_half_without_a_kept_row_has_no_cosine() -> None:
    model, prompts, plan, leaf_N = batch()
    even = plan.rows_N // G % 2 == 0
    taken = plan.take(even)
    found = probe_gradients(model, prompts, taken, leaf_N[even], G)
    assert found["cosine_halves"] is None
    assert found["gradient_variance"]


def test_one_group_has_no_figure() -> None:
    model, prompts, plan, leaf_N = batch("sft_hard_negative", prompts=2)
    one = plan.rows_N // G == 0
    taken = plan.take(one)
    found = probe_gradients(model, prompts.take(slice(0, 1)), taken, leaf_N[one], G)
    assert found == dict.fromkeys(FIGURES)


def test_the_model_and_the_random_state_stay_as_they_are() -> None:
    model, prompts, plan, leaf_N = batch()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    runs = [probe_gradients(model, prompts, plan, leaf_N, G) for _ in range(2)]
    assert runs[0] == runs[1]
    assert tuple(runs[0]) == FIGURES
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None and p.requires_grad for p in list(model.parameters())[1:])


def test_dropout_is_refused() -> None:
    model, prompts, plan, leaf_N = batch()
    with pytest.raises(TrainError, match=r"model\.training: True .* call model\.eval\(\)"):
        probe_gradients(model.train(), prompts, plan, leaf_N, G)
