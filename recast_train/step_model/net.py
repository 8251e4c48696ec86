"""What of a causal LM its cost depends on, and the elements that transformers' Qwen3 moves and keeps for a token."""

from dataclasses import dataclass
from typing import Any

from recast_train.model.model_config import Shape

FORWARD_CALLS, BACKWARD_CALLS = 46, 98  # operations of a layer that are no views
MATRICES = 7  # of a layer: query, key, value, output, gate, up, down
NORMS = 4  # of a layer: before attention, before the feed-forward part, of queries, of keys


@dataclass(frozen=True)
class Net:
    """Widths and depth of a Qwen3 (RMS norms of queries and keys, SwiGLU), `vocabulary` rows of its token tables.

    Elements "moved" are read or written by the operations of an eager pass: each operation reads its inputs and writes its
    result. Weights come on top, once a pass.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied: bool

    @classmethod
    def of_shape(cls, shape: Shape, vocabulary: int) -> "Net":
        """Of a named shape of `ModelConfig`."""
        return cls(
            shape.layers,
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.head_dim,
            shape.feed_forward,
            vocabulary,
            shape.tied,
        )

    @classmethod
    def of_lm(cls, lm: Any) -> "Net":
        """Of a causal LM of transformers, with or without weights. Other architectures are taken as a Qwen3 of their widths."""
        config = lm.config
        heads = config.num_attention_heads
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            heads,
            getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            len(lm.get_input_embeddings().weight),
            lm.get_input_embeddings().weight is lm.get_output_embeddings().weight,
        )

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Elements of a layer's matrices."""
        return 2 * self.hidden * (self.queries + self.keys) + 3 * self.hidden * self.feed_forward

    @property
    def tables(self) -> int:
        """Elements of the token tables, one where they are tied."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All elements: N of `recast_train.rl.cost`."""
        norms = 2 * self.hidden + 2 * self.head_dim
        return self.layers * (self.layer_weights + norms) + self.hidden + self.tables

    @property
    def tensors(self) -> int:
        """Parameters counted as tensors: what an optimiser goes through."""
        return self.layers * (MATRICES + NORMS) + 1 + (1 if self.tied else 2)

    @property
    def cached(self) -> int:
        """Elements of keys and values of one token, all layers."""
        return 2 * self.layers * self.keys

    @property
    def moved_forward(self) -> int:
        """Elements that one token moves in one layer's forward pass, weights not counted."""
        return 27 * self.hidden + 8 * self.feed_forward + 21 * (self.queries + self.keys)

    @property
    def moved_backward(self) -> int:
        """The same of the backward pass."""
        return 74 * self.hidden + 14 * self.feed_forward + 48 * (self.queries + self.keys)

    @property
    def kept(self) -> int:
        """Elements that one token and layer keep for the backward pass; keys and values as wide as the queries."""
        return 6 * self.hidden + 4 * self.feed_forward + 6 * self.queries + 2 * self.keys

    @property
    def alive(self) -> int:
        """Elements of a layer that one token holds at most without gradient: four of the feed-forward part's width."""
        return 3 * self.hidden + 4 * self.feed_forward
