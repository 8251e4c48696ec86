"""Which attention an LM computes with: sdpa, eager, or flash-attn where it can be used.

flash-attn takes causal attention and padding, no other mask. So under "flash_attention_2" a pass without a mask goes to it,
and one with a mask to sdpa; the mask alone decides, hence a layer that gradient checkpointing computes again decides alike.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from recast_train.model.config import require

FLASH_OR_MASKED = "recast_causal_or_masked"  # without "flash" in it, or transformers would treat masks its own way


def implementation(attention: str) -> str:
    """The name that transformers knows it by.

    Raises:
        TrainError: flash_attention_2 without a GPU or without the package flash-attn.
    """
    if attention != "flash_attention_2":
        return attention
    field, value = "ModelConfig.attention", repr(attention)
    require(torch.cuda.is_available(), field, value, "needs a GPU, and torch sees none; use 'sdpa'")
    require(find_spec("flash_attn") is not None, field, value, "needs the package flash-attn; pip install it, or use 'sdpa'")
    return register()


def register() -> str:
    """Make `causal_or_masked` known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(FLASH_OR_MASKED, causal_or_masked)
    return FLASH_OR_MASKED


def causal_or_masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention (P, Q, heads, head_dim) of query, key and value (P, heads, Q or K, head_dim), as transformers calls it.

    Raises:
        TrainError: a pass without a mask in fp32, which flash-attn does not compute.
    """
    if attention_mask is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

    half = value.dtype in (torch.bfloat16, torch.float16)
    mend = "cannot be computed by flash_attention_2; set precision 'bf16' or the engine's mixed precision"
    require(half, "ModelConfig.precision", str(value.dtype), mend)
    parts = [part.transpose(1, 2).to(value.dtype) for part in (query, key, value)]  # a norm with fp32 weights widens the query
    dropout, scale = options.get("dropout", 0.0), options.get("scaling")
    return flash_attn_func(*parts, dropout_p=dropout, softmax_scale=scale, causal=True), None
