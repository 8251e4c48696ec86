"""Which attention an LM computes with: sdpa, eager, or flash-attn where it can be used; and how a split pass is attended.

A mask (P, 1, E, K) of fewer rows than there are queries makes a pass a split one: it is that of the last E queries, and the
queries before them are plain causal among themselves. So a prompt goes through the causal kernel, what branches off it sees
the prompt's keys, and no mask over all queries is ever built. The mask is all that has to reach the attention: transformers
hands a mask of four axes on as it is, also to a layer that gradient checkpointing computes again.

flash-attn takes causal attention and padding, no other mask. So under "flash_attention_2" a pass without a mask goes to it,
and one with a mask to sdpa, whose causal kernel on a GPU is flash attention too.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from recast_train.model.model_config import require

FIELD = "ModelConfig.attention"
SPLIT = "recast_sdpa"
FLASH_OR_SPLIT = "recast_causal_or_masked"  # without "flash" in it, or transformers would treat masks its own way


def implementation(attention: str) -> str:
    """The name that transformers builds a model with; "sdpa" lets it check the architecture, `set_split` then replaces it.

    Raises:
        TrainError: flash_attention_2 without a GPU or without the package flash-attn.
    """
    if attention != "flash_attention_2":
        return attention
    value = repr(attention)
    require(torch.cuda.is_available(), FIELD, value, "needs a GPU, and torch sees none; use 'sdpa'")
    require(find_spec("flash_attn") is not None, FIELD, value, "needs the package flash-attn; pip install it, or use 'sdpa'")
    return _register(FLASH_OR_SPLIT, causal_or_masked)


def set_split(lm: Any) -> None:
    """Let an LM with "sdpa" take split passes. One with "eager" gets a mask over all queries instead (`whole_mask`).

    Raises:
        TrainError: an architecture that does not call its attention through transformers' AttentionInterface.
    """
    if lm.config._attn_implementation == "sdpa":
        lm.set_attn_implementation(_register(SPLIT, masked))  # where it cannot be set it only warns
    able = lm.config._attn_implementation in (SPLIT, FLASH_OR_SPLIT, "eager")
    mend = f"does not reach {type(lm).__name__}, which computes attention its own way; set it to 'eager'"
    require(able, FIELD, repr(lm.config._attn_implementation), mend)


def masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention (P, Q, heads, head_dim) of query, key and value (P, heads, Q or K, head_dim), as transformers calls it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    T = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if attention_mask is None or T == 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    before, last = query.split([T, query.shape[2] - T], 2)
    causal, _ = sdpa_attention_forward(module, before, key[:, :, :T], value[:, :, :T], None, **{**options, "is_causal": True})
    return torch.cat([causal, _grouped(last, key, value, attention_mask, options)], 1), None


def causal_or_masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`masked`, and flash-attn where there is no mask.

    Raises:
        TrainError: a pass without a mask in fp32, which flash-attn does not compute.
    """
    if attention_mask is not None:
        return masked(module, query, key, value, attention_mask, **options)
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

    half = value.dtype in (torch.bfloat16, torch.float16)
    mend = "cannot be computed by flash_attention_2; set precision 'bf16' or the engine's mixed precision"
    require(half, "ModelConfig.precision", str(value.dtype), mend)
    parts = [part.transpose(1, 2).to(value.dtype) for part in (query, key, value)]  # a norm with fp32 weights widens the query
    dropout, scale = options.get("dropout", 0.0), options.get("scaling")
    return flash_attn_func(*parts, dropout_p=dropout, softmax_scale=scale, causal=True), None


def whole_mask(mask: Tensor, queries: int) -> Tensor:
    """The mask (P, 1, Q, Q) that a split pass's mask (P, 1, E, Q) stands for, where an attention cannot split; else `mask`."""
    if mask.shape[2] == queries:
        return mask
    causal = torch.ones(queries, queries, dtype=torch.bool, device=mask.device).tril()[: queries - mask.shape[2]]
    return torch.cat([causal.expand(len(mask), 1, -1, -1), mask], 2)


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: dict[str, Any]) -> Tensor:
    """Attention (P, E, heads, head_dim) under a mask. Queries that share a key head become more queries of that head: they are
    few beside the keys, which are never repeated."""
    P, heads, E, width = query.shape
    shared = heads // key.shape[1]
    found = scaled_dot_product_attention(
        query.reshape(P, key.shape[1], shared * E, width),
        key,
        value,
        mask.repeat(1, 1, shared, 1),
        options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return found.reshape(P, heads, E, value.shape[-1]).transpose(1, 2)


def _register(name: str, function: Callable[..., tuple[Tensor, None]]) -> str:
    from transformers import AttentionInterface

    AttentionInterface.register(name, function)
    return name
