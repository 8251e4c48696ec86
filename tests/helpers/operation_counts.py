"""What the operations of a Qwen3's layers read and write, counted by a dispatch mode: the oracle of the step model's counts."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

VIEWS = {
    *("view", "expand", "transpose", "permute", "slice", "alias", "detach", "t", "unsqueeze", "squeeze", "select"),
    *("unbind", "split", "split_with_sizes", "_unsafe_view", "empty", "empty_like", "new_empty_strided"),
}


class Counted(TorchDispatchMode):
    """Operations that are no views, and elements of their inputs and results (numbers left out)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in VIEWS:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
            self.calls += 1
            self.elements += sum(tensor.numel() for tensor in tensors if tensor.numel() > 1)
        return found


def layer_counts(net: Any, rows: int, length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Calls and elements that one layer adds to a forward and to a backward pass over (rows, length) tokens."""
    (few, many) = (_whole(net, layers, rows, length) for layers in (2, 3))
    forward, backward = (tuple(b - a for a, b in zip(one, other, strict=True)) for one, other in zip(few, many, strict=True))
    return forward, backward


def bare_lm(net: Any, layers: int | None = None, device: str = "cpu") -> Any:
    """transformers' Qwen3 of a step model's widths."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=net.vocabulary,
        hidden_size=net.hidden,
        intermediate_size=net.feed_forward,
        num_hidden_layers=layers or net.layers,
        num_attention_heads=net.heads,
        num_key_value_heads=net.kv_heads,
        head_dim=net.head_dim,
        tie_word_embeddings=net.tied,
        attn_implementation="sdpa",
    )
    with torch.device(device):
        return Qwen3ForCausalLM(config)


def _whole(net: Any, layers: int, rows: int, length: int) -> list[tuple[int, int]]:
    lm, found = bare_lm(net, layers), []
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    with Counted() as count:
        hidden = lm.model(input_ids=tokens, use_cache=False).last_hidden_state
    found.append((count.calls, count.elements))
    with Counted() as count:
        hidden.sum().backward()
    return [*found, (count.calls, count.elements)]
