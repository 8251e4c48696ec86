"""Shared prompts and prefixes against the LM's own forward on each row alone; the tree against sets of prefixes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sid_world import TINY, tiny_catalog
from torch import Tensor, nn

from recast_train.model import PromptTokens, SidModel, TrainError, build_model, sid_vocabulary
from recast_train.model.shared_prefixes import prefix_states, prefix_tree
from recast_train.model.shared_prompts import shared_hidden

CATALOG, VOCABULARY = tiny_catalog(), 14
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
}


def language_model(kind: str, **settings: Any) -> SidModel:
    """A tiny LM whose states differ much between tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "qwen3":
        model = build_model(CATALOG, replace(TINY, heads=4, **settings), 0)
    else:
        lm = (
            LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2))
            if kind == "llama"
            else GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=64))
        )
        model = SidModel(lm, CATALOG, sid_vocabulary(CATALOG), 0.0).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                weight.mul_(4.0)
    return model


def alone(model: SidModel, prompt_T: Tensor, tokens_L: Tensor) -> Tensor:
    """States (1 + L, D) after a prompt and after each token, by the LM's own forward: no mask, positions or padding of ours."""
    ids = torch.cat([prompt_T, tokens_L])[None]
    return model.lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt_T) - 1 :]


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def distance(ours: dict[str, Tensor], oracle: dict[str, Tensor]) -> float:
    """Length of the difference of two gradients by the length of the second."""
    assert ours.keys() == oracle.keys()
    apart, length = (sum(float(g.double().square().sum()) for g in parts) ** 0.5 for parts in (
        [ours[name] - grad for name, grad in oracle.items()], oracle.values()
    ))  # fmt: skip
    assert length > 0
    return apart / length


@st.composite
def batches(draw: st.DrawFn) -> tuple[PromptTokens, Tensor, Tensor, Tensor]:
    """Prompts of several lengths padded on one side, rows of several lengths, of few tokens so that prefixes are shared."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    P, N, L = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(0, 5))
    length, T = torch.from_numpy(rng.integers(1, 8, P)), 9
    real = torch.arange(T) < length[:, None]
    tokens = torch.from_numpy(rng.integers(2, VOCABULARY, (P, T)))
    prompts = PromptTokens(tokens, real if draw(st.booleans()) else real.flip(1))
    rows = torch.from_numpy(rng.integers(2, 2 + draw(st.integers(1, 5)), (N, L)))
    prompt_N = torch.from_numpy(rng.integers(0, P, N))
    own_N = torch.from_numpy(rng.integers(0, L + 1, N)) if draw(st.booleans()) else torch.full((N,), L)
    return prompts, prompt_N, rows, torch.arange(L) < own_N[:, None]


def compared(model: SidModel, batch: tuple[PromptTokens, Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Largest difference of a state that a row has, by the largest state; and the distance of the gradients."""
    prompts, prompt_N, tokens_NL, real_NL = batch
    states, at = prefix_states(model, prompts, prefix_tree(prompt_N, tokens_NL, real_NL))
    hidden = states[at]
    assert hidden.shape[:2] == (len(tokens_NL), tokens_NL.shape[1] + 1)
    ours = [hidden[n, : 1 + int(real_NL[n].sum())] for n in range(len(hidden))]
    oracle = [
        alone(model, prompts.tokens_PT[p][prompts.real_PT[p]], tokens[real])
        for p, tokens, real in zip(prompt_N.tolist(), tokens_NL, real_NL, strict=True)
    ]
    flat, expected = torch.cat(ours).float(), torch.cat(oracle).float()
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    apart = distance(gradients(model, (weight * flat).sum()), gradients(model, (weight * expected).sum()))
    return float((flat - expected).detach().abs().max() / expected.detach().abs().max()), apart


MODELS = [
    ("qwen3", {"kv_heads": 4}),
    ("qwen3", {"kv_heads": 1}),
    ("qwen3", {"kv_heads": 2, "gradient_checkpointing": True}),
    ("qwen3", {"kv_heads": 2, "attention": "eager"}),
    ("llama", {}),
    ("gpt2", {}),
]


@pytest.mark.property
@pytest.mark.parametrize(("kind", "config"), MODELS)
def test_shared_rows_are_those_computed_alone(kind: str, config: dict[str, Any]) -> None:
    model = language_model(kind, **config)

    @settings(max_examples=12, deadline=None)
    @given(batches())
    def check(batch: tuple[PromptTokens, Tensor, Tensor, Tensor]) -> None:
        states, grads = compared(model, batch)
        assert states < 1e-5
        assert grads < 1e-5

    check()


@settings(max_examples=10, deadline=None)
@given(batches())
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_as_near_as_its_rounding(autocast: bool, batch: tuple[PromptTokens, Tensor, Tensor, Tensor]) -> None:
    model = language_model("qwen3", kv_heads=2, precision="fp32" if autocast else "bf16")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        states, grads = compared(model, batch)
    assert states < 0.05  # bf16 rounds to 1 part in 256, over two layers
    assert grads < 0.15


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(batches())
def test_a_tree_holds_each_prefix_once(batch: tuple[PromptTokens, Tensor, Tensor, Tensor]) -> None:
    prompts, prompt_N, tokens_NL, real_NL = batch
    tree, rows = prefix_tree(prompt_N, tokens_NL, real_NL), []
    for p, tokens, real in zip(prompt_N.tolist(), tokens_NL, real_NL, strict=True):
        rows.append((p, tuple(tokens[real].tolist())))
    assert tree.used_P.tolist() == sorted({p for p, _ in rows})
    assert [int(tree.used_P[group]) for group in tree.group_N] == [p for p, _ in rows]
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    for (p, path), at_L in zip(rows, tree.at_NL.tolist(), strict=True):
        for depth, place in enumerate(at_L):
            prefix = path[: depth + 1]
            assert places.setdefault((p, prefix), place) == place
            assert (place == -1) == (not prefix)
    found = {key: place for key, place in places.items() if key[1]}
    assert len({(p, place) for (p, _), place in found.items()}) == len(found)
    assert tree.size_P.tolist() == [sum(p == used for p, _ in found) for used in tree.used_P.tolist()]
    assert tree.tokens(prompts.length_P) == int(prompts.length_P[tree.used_P].sum()) + len(found)
    group = {p: i for i, p in enumerate(tree.used_P.tolist())}
    for (p, path), place in found.items():
        assert int(tree.tokens_PE[group[p], place]) == path[-1]
        assert int(tree.depth_PE[group[p], place]) == len(path) - 1
        for (other, begin), at in found.items():
            if other == p:
                assert bool(tree.sees_PEE[group[p], place, at]) == (path[: len(begin)] == begin)


def test_a_row_with_a_gap_is_refused() -> None:
    with pytest.raises(TrainError, match="real_NL: a row has a token after its end; pad rows on the right"):
        prefix_tree(torch.zeros(1).long(), torch.ones(1, 3).long(), torch.tensor([[True, False, True]]))


@pytest.mark.parametrize("lengths", [None, [[1, 4, 2], [4, 3, 1]]])
def test_states_that_predict_responses_of_any_tokens(lengths: list[list[int]] | None) -> None:
    model, responses = (
        language_model("qwen3", kv_heads=2),
        torch.randint(2, 5, (2, 3, 4), generator=torch.Generator().manual_seed(0)),
    )
    length_PR = torch.tensor(lengths or [[4] * 3] * 2)
    real = torch.arange(4) < length_PR[..., None]
    prompts = PromptTokens(torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.tensor([[False, True, True], [True] * 3]))
    found = shared_hidden(model, prompts, responses, real if lengths else None)
    for p, r in np.ndindex(2, 3):
        read = responses[p, r, : int(length_PR[p, r]) - 1]
        expected = alone(model, prompts.tokens_PT[p][prompts.real_PT[p]], read)
        assert torch.allclose(found[p, r, : len(expected)], expected, rtol=1e-4, atol=1e-5)


def test_no_mask_over_all_positions_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    from recast_train.model import attention

    model, seen = language_model("qwen3"), []
    plain = attention.scaled_dot_product_attention
    monkeypatch.setattr(
        attention,
        "scaled_dot_product_attention",
        lambda q, k, v, mask, *r, **o: seen.append(mask.shape) or plain(q, k, v, mask, *r, **o),
    )
    prompts = PromptTokens(torch.full((2, 7), 3), torch.ones(2, 7, dtype=torch.bool))
    prefix_states(model, prompts, prefix_tree(torch.tensor([0, 0, 1]), torch.tensor([[2, 3], [2, 4], [2, 3]])))
    assert seen == [(2, 1, 3, 7 + 3)] * 2  # three prefixes behind the first prompt, in both layers


def test_attention_dropout_acts_on_both_parts() -> None:
    model = build_model(CATALOG, replace(TINY, attention_dropout=0.5), 0).train()
    prompts = PromptTokens(torch.full((1, 7), 3), torch.ones(1, 7, dtype=torch.bool))
    responses = torch.tensor([[[2, 3, 5], [2, 4, 5]]])
    one, same, other = ((torch.manual_seed(seed), shared_hidden(model, prompts, responses))[1] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert bool(((one - other).abs().amax(3) > 1e-4).all())


def test_an_architecture_with_attention_of_its_own_is_refused() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    lm = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=2))
    lm.config._attn_implementation = "sdpa"
    with pytest.raises(TrainError, match=r"ModelConfig\.attention: 'sdpa' does not reach BloomForCausalLM.*set it to 'eager'"):
        SidModel(lm, CATALOG, sid_vocabulary(CATALOG), 0.0)
