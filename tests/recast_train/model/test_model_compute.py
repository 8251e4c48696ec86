"""How a model is computed: sizes, precision, gradient checkpointing, attention."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sid_world import TINY, enumerated, histories, tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor

from recast_sim.runs.model_state import load_state, save_state
from recast_train.model import ModelConfig, SidModel, TrainError, attention, build_model
from recast_train.model.build import qwen3_config
from recast_train.model.level_logits import OutputMatrix, level_logits
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.rollout import sample_rollouts
from recast_train.supervised.window_loss import window_loss

CATALOG = tiny_catalog()
WINDOWS = np.array([[3, 7, 3, 1], [5, 2, -1, -1], [4, -1, -1, -1]])


def parameters(config: Any) -> tuple[int, int]:
    """Number of parameters, and of those beside the token tables."""
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        lm = Qwen3ForCausalLM(config)
    tables = {id(table.weight): table.weight.numel() for table in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    whole = sum(weight.numel() for weight in lm.parameters())
    return whole, whole - sum(tables.values())


@pytest.mark.parametrize(
    ("size", "vocabulary", "expected"),
    [
        # the third level of ML-100K's SIDs is the index of an item among those with the same codes
        ("tiny", 2 + 32 + 16 + 24, 0.3e6),
        ("small", 2 + 32 + 16 + 24, 3e6),
        ("base", 2 + 32 + 16 + 24, 20e6),
        ("qwen3-0.6b", 151_936, 0.596e9),  # the figures of the model cards: 0.6 B (0.44 B without embeddings),
        ("qwen3-1.7b", 151_936, 1.72e9),  # 1.7 B (1.4 B), 4.0 B (3.6 B), 8.2 B (6.95 B), 14.8 B (13.2 B)
        ("qwen3-4b", 151_936, 4.02e9),
        ("qwen3-8b", 151_936, 8.19e9),
        ("qwen3-14b", 151_936, 14.8e9),
    ],
)
def test_sizes(size: Any, vocabulary: int, expected: float) -> None:
    whole, body = parameters(qwen3_config(ModelConfig(size=size), vocabulary))
    assert whole == pytest.approx(expected, rel=0.05 if size.startswith("qwen") else 0.15)
    cards = {"qwen3-0.6b": 0.44e9, "qwen3-1.7b": 1.4e9, "qwen3-4b": 3.6e9, "qwen3-8b": 6.95e9, "qwen3-14b": 13.2e9}
    assert body == pytest.approx(cards.get(size, expected), rel=0.05 if size in cards else 0.15)


def test_qwen_positions_and_norms() -> None:
    config = qwen3_config(ModelConfig(size="qwen3-0.6b"), 100)
    assert config.rope_parameters["rope_theta"] == 1e6
    assert (config.rms_norm_eps, config.tie_word_embeddings, config.num_key_value_heads) == (1e-6, True, 8)
    assert not qwen3_config(ModelConfig(size="qwen3-8b"), 100).tie_word_embeddings


def test_grouped_queries() -> None:
    model = build_model(CATALOG, replace(TINY, heads=4, kv_heads=2), 0)
    assert model.lm.model.layers[0].self_attn.k_proj.weight.shape == (8, 16)
    prompts = tiny_prompts(CATALOG, 3)
    rollouts = sample_rollouts(model, prompts, 4, torch.Generator().manual_seed(0))
    exact = np.take_along_axis(enumerated(model, prompts), rollouts.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(rollouts.logprobs_PGL.numpy(), exact, atol=1e-5)


def test_bf16_rounds_the_weights_alone(tmp_path: Path) -> None:
    full, half = (build_model(CATALOG, replace(TINY, precision=precision), 0) for precision in ("fp32", "bf16"))
    for one, other in zip(full.parameters(), half.parameters(), strict=True):
        assert other.dtype == torch.bfloat16
        assert torch.equal(one.bfloat16(), other)
    assert half.lm.model.rotary_emb.inv_freq.dtype == torch.float32
    prompts, every = tiny_prompts(CATALOG, 1), torch.arange(full.nodes[-1])
    with torch.no_grad():
        exact, found = (packed_logprobs(model, prompts, torch.zeros_like(every), every) for model in (full, half))
    assert found.dtype == torch.float32
    assert float(found.sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)  # a softmax in bf16 is off by 1e-2
    assert torch.allclose(exact, found, atol=0.02)
    save_state(tmp_path, half)
    again = build_model(CATALOG, replace(TINY, precision="bf16"), 1)
    load_state(tmp_path, again)
    assert all(torch.equal(one, other) for one, other in zip(half.parameters(), again.parameters(), strict=True))


def test_autocast_leaves_the_softmax_in_fp32() -> None:
    model, hidden = tiny_model(CATALOG), torch.randn(5, 16)
    exact = hidden @ model.lm.lm_head.weight[6:9].T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.level_logits([hidden], 1)[0], exact)
        assert not torch.equal(hidden @ model.lm.lm_head.weight[6:9].T, exact)


def with_checkpointing(attention_dropout: float = 0.0) -> tuple[SidModel, SidModel]:
    config = replace(TINY, dropout=attention_dropout, attention_dropout=attention_dropout)
    plain, spared = (build_model(CATALOG, replace(config, gradient_checkpointing=on), 0) for on in (False, True))
    return plain, spared


def gradients_and_size(model: SidModel, loss_of: Any) -> tuple[list[Tensor], int]:
    """Gradients, and the number of floats that the graph keeps beside the parameters."""
    kept: dict[int, int] = {}
    weights = {weight.data_ptr() for weight in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in weights:
            kept[id(tensor)] = tensor.numel()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model)
    loss.backward()
    return [weight.grad for weight in model.parameters() if weight.grad is not None], sum(kept.values())


@pytest.mark.parametrize("training", [False, True])
def test_checkpointed_gradients_are_the_plain_ones(training: bool) -> None:
    def loss_of(model: SidModel) -> Tensor:
        if training:
            return window_loss(model.train(), CATALOG, WINDOWS)
        rows = torch.tensor([0, 0, 1, 2])
        return packed_logprobs(model.eval(), tiny_prompts(CATALOG, 3), rows, torch.tensor([1, 4, 7, 2])).sum()

    plain, spared = with_checkpointing(0.5 if training else 0.0)
    (expected, much), (found, less) = gradients_and_size(plain, loss_of), gradients_and_size(spared, loss_of)
    assert len(expected) == len(found) == len(list(plain.parameters()))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(expected, found, strict=True))
    assert less < 0.5 * much


def test_evaluation_has_no_dropout_where_layers_are_checkpointed() -> None:
    plain, spared = with_checkpointing(0.5)
    rows, leaves = torch.arange(3), torch.tensor([1, 4, 7])
    pair = [packed_logprobs(model, tiny_prompts(CATALOG, 3), rows, leaves) for model in (plain, spared)]
    assert torch.equal(*pair)
    assert not any(module.training for module in spared.modules())


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_leaves_the_cache_of_rollouts(training: bool) -> None:
    plain, spared = (model.train(training) for model in with_checkpointing())
    pair = [sample_rollouts(model, tiny_prompts(CATALOG, 3), 4, torch.Generator().manual_seed(0)) for model in (plain, spared)]
    assert torch.equal(pair[0].logprobs_PGL, pair[1].logprobs_PGL)


def test_eager_and_sdpa_agree() -> None:
    for config in (TINY, replace(TINY, precision="bf16")):
        models = [build_model(CATALOG, replace(config, attention=name), 0) for name in ("sdpa", "eager")]
        with torch.no_grad():
            masked = [packed_logprobs(m, tiny_prompts(CATALOG, 3), torch.arange(3), torch.arange(3)) for m in models]
            plain = [window_loss(m, CATALOG, WINDOWS) for m in models]
        tolerance = 1e-5 if config is TINY else 0.02
        assert torch.allclose(*masked, atol=tolerance)
        assert torch.allclose(*plain, atol=tolerance)


def test_flash_attention_is_refused_where_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, attention="flash_attention_2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match=r"ModelConfig\.attention: 'flash_attention_2' needs a GPU.*use 'sdpa'"):
        build_model(CATALOG, config, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"'flash_attention_2' needs the package flash-attn; pip install it"):
        build_model(CATALOG, config, 0)


def test_flash_attention_serves_plain_causal_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def flash(query: Tensor, key: Tensor, value: Tensor, dropout_p: float, softmax_scale: float, causal: bool) -> Tensor:
        calls.append(query.dtype)
        parts = [part.transpose(1, 2) for part in (query, key, value)]
        options = {"dropout_p": dropout_p, "is_causal": causal, "scale": softmax_scale, "enable_gqa": True}
        return torch.nn.functional.scaled_dot_product_attention(*parts, **options).transpose(1, 2)

    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=flash))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(attention, "find_spec", lambda name: name)
    config = replace(TINY, heads=4, kv_heads=2, precision="bf16")
    plain, fast = (build_model(CATALOG, replace(config, attention=name), 0) for name in ("sdpa", "flash_attention_2"))
    prompts = plain.vocabulary.encode(histories(CATALOG, 3))
    with torch.no_grad():
        pair = [packed_logprobs(model, prompts, torch.arange(3), torch.arange(3)) for model in (plain, fast)]
        assert torch.equal(*pair)
        assert not calls
        assert torch.allclose(window_loss(plain, CATALOG, WINDOWS), window_loss(fast, CATALOG, WINDOWS), atol=0.02)
    assert calls == [torch.bfloat16] * 2  # once a layer
    with pytest.raises(TrainError, match=r"ModelConfig\.precision: torch\.float32 cannot be computed by flash_attention_2"):
        window_loss(build_model(CATALOG, replace(config, attention="flash_attention_2", precision="fp32"), 0), CATALOG, WINDOWS)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("contiguous", [True, False])
def test_one_gradient_of_the_output_matrix_is_that_of_slices(precision: torch.dtype, contiguous: bool) -> None:
    offset, sizes = (9, 2, 6), (4, 3, 3)  # levels in any order, tokens that are of no level
    weight = torch.randn(15, 8, dtype=precision, requires_grad=True)
    hidden = [torch.randn(shape, requires_grad=True) for shape in ((5, 8), (4, 3, 8), (1, 8))]  # fewer states than 8 and more
    spans = [slice(a, a + n) for a, n in zip(offset, sizes, strict=True)]
    rows = spans if contiguous else [torch.arange(15)[span].flip(0) for span in spans]
    sliced = [h @ weight[of].float().T for of, h in zip(rows, hidden, strict=True)]
    found = level_logits(OutputMatrix(weight), rows, hidden)
    assert all(torch.equal(one, other) for one, other in zip(found, sliced, strict=True))
    ours, expected = (
        torch.autograd.grad(sum(one.square().sum() for one in every), [weight, *hidden]) for every in (found, sliced)
    )
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), rtol=1e-2 if precision == torch.bfloat16 else 1e-5)


def test_the_gradient_of_the_output_matrix_comes_after_those_of_the_layers() -> None:
    """Beside the activations it would be the largest table of a pass."""
    model, order = build_model(CATALOG, TINY, 0), []
    # tied, it would wait for the embedding
    model.lm.lm_head.weight = torch.nn.Parameter(model.lm.lm_head.weight.detach().clone())
    for name, weight in model.named_parameters():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    prompts, leaf_N = tiny_prompts(CATALOG, 2), torch.tensor([0, 1])
    for loss in (lambda: packed_logprobs(model, prompts, leaf_N, leaf_N).sum(), lambda: window_loss(model, CATALOG, WINDOWS)):
        order.clear()
        loss().backward()
        layers = [place for place, name in enumerate(order) if ".layers." in name]
        assert layers
        assert order.index("lm.lm_head.weight") > max(layers)


def test_a_frozen_output_matrix_keeps_nothing_for_a_gradient() -> None:
    matrix, hidden = OutputMatrix(torch.randn(15, 8)), torch.randn(3, 8, requires_grad=True)
    level_logits(matrix, [slice(2, 8)], [hidden])[0].sum().backward()
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad, matrix.weight[2:8].sum(0).expand(3, 8), atol=1e-6)
    assert not matrix.parts


def test_a_second_backward_pass_gives_the_same_gradient_of_the_output_matrix() -> None:
    weight, hidden = torch.randn(15, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    (logits,) = level_logits(OutputMatrix(weight), [slice(2, 8)], [hidden])
    loss = logits.square().sum()
    torch.autograd.grad(loss, [hidden], retain_graph=True)
    first, second = (torch.autograd.grad(loss, [weight], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first[2:8], 2 * logits.detach().T @ hidden.detach())
