"""The generative recommender: a causal LM over a vocabulary of semantic-ID tokens, and its trie-constrained softmax.

Vocabulary: PAD, BOS, then each level's own range of tokens (token = offset[level] + code). A history is BOS and the L
tokens of each item, padded on the left. Axis letters: P prompts, T tokens of a prompt, Q query positions, K key
positions, L levels, N trie nodes, B children of a node, C codes of a level, H history items, D hidden width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recast_sim.catalog import Catalog
from recast_sim.runs import derive_seed

T = TypeVar("T")
PAD_TOKEN, BOS_TOKEN, SPECIAL_TOKENS = 0, 1, 2


class TrainError(ValueError):
    """A bad setting of the real trainer, or a loss that is not finite; the message names field, value and mend."""


@dataclass(frozen=True)
class ModelConfig:
    """Size of the Qwen3 model, and its dropout.

    Attributes:
        hidden, layers, heads, feed_forward: widths and depth; `hidden` is a multiple of 2 * `heads` (rotary pairs).
        dropout: on token embeddings and on the last hidden state; `attention_dropout`: on attention weights. Both act in
            supervised training alone.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 384
    dropout: float = 0.2
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "feed_forward"):
            require(getattr(self, name) >= 1, f"ModelConfig.{name}", getattr(self, name), "must be at least 1")
        fits = self.hidden % (2 * self.heads) == 0
        require(fits, "ModelConfig.hidden", self.hidden, f"must be a multiple of {2 * self.heads} (2 * heads)")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"ModelConfig.{name}", getattr(self, name), "must lie in [0, 1)")


def require(ok: bool, field: str, value: object, mend: str) -> None:
    """Raise TrainError naming the field, its value and the mend unless `ok`."""
    if not ok:
        raise TrainError(f"{field}: {value} {mend}")


class SidModel(nn.Module):
    """Qwen3ForCausalLM over the tokens of one catalog. Build it with `build_model`.

    `children_l` (N, B) of each level 0..L-1 are the legal next nodes (-1 where padded) and `codes_l` (N, B) their codes.
    """

    def __init__(self, lm: Any, catalog: Catalog, dropout: float) -> None:
        super().__init__()
        self.lm: Any = lm
        self.dropout = nn.Dropout(dropout)
        self.sizes = catalog.sizes
        self.levels = catalog.levels
        self.nodes = tuple(len(code) for code in catalog.node_code)
        self.offset = tuple(SPECIAL_TOKENS + int(sum(catalog.sizes[:level])) for level in range(catalog.levels))
        tables = {"leaf_codes": catalog.leaf_codes, "leaf_nodes": catalog.leaf_nodes}
        for level in range(catalog.levels):
            children = catalog.children(level)
            tables[f"children_{level}"] = children
            tables[f"codes_{level}"] = np.where(children >= 0, catalog.node_code[level + 1][children], 0)
            tables[f"node_code_{level + 1}"] = catalog.node_code[level + 1]
            tables[f"node_parent_{level + 1}"] = catalog.node_parent[level + 1]
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(table)), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.table("leaf_codes").device

    def table(self, name: str, level: int | None = None) -> Tensor:
        """A table of the trie on the model's device, int64."""
        return getattr(self, name if level is None else f"{name}_{level}")

    def forward(self, compute: Callable[..., T], *arguments: Any) -> T:
        """compute(model, *arguments): the one entry, so that wrappers of distributed training see every pass."""
        return compute(self, *arguments)

    def hidden(self, tokens_PQ: Tensor, positions_PQ: Tensor, mask: Tensor | None, cache: Any = None) -> Tensor:
        """Last hidden states (P, Q, D).

        `mask` is bool (P, 1, Q, K), true where query q may attend to key k (K counts what `cache` holds, then the new
        tokens); None is plain causal attention without padding on the left.
        """
        embedded = self.dropout(self.lm.get_input_embeddings()(tokens_PQ))
        # a dict of masks is taken as it is: transformers builds none of its own
        output = self.lm.model(
            inputs_embeds=embedded,
            attention_mask={"full_attention": mask},
            position_ids=positions_PQ,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return self.dropout(output.last_hidden_state)

    def level_logits(self, hidden_D: Tensor, level: int) -> Tensor:
        """Logits (..., C) of one level's tokens, from hidden states (..., D): never of the whole vocabulary."""
        start = self.offset[level]
        return hidden_D @ self.lm.lm_head.weight[start : start + self.sizes[level]].T

    def child_logprobs(self, hidden_D: Tensor, level: int, node: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-softmax over the legal children (..., B) of each `node` (...) of `level`; -inf where padded."""
        legal = self.table("children", level)[node] >= 0
        logits = self.level_logits(hidden_D, level).gather(-1, self.table("codes", level)[node])
        return (logits / temperature).masked_fill(~legal, -torch.inf).log_softmax(-1)

    def step_logprobs(self, hidden_D: Tensor, level: int, parent: Tensor, child: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probability (...) of going from `parent` (a node of `level`) to `child` (a node of `level + 1`)."""
        column = child - self.table("children", level)[parent][..., 0]  # children of a node are numbered in a row
        return self.child_logprobs(hidden_D, level, parent, temperature).gather(-1, column[..., None])[..., 0]


def build_model(catalog: Catalog, config: ModelConfig, seed: int) -> SidModel:
    """A fresh model on the CPU, its weights drawn from `seed` alone, in evaluation mode."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # seconds to import; configs and --help do not need it

    settings: dict[str, Any] = {
        "vocab_size": SPECIAL_TOKENS + int(sum(catalog.sizes)),
        "hidden_size": config.hidden,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "head_dim": config.hidden // config.heads,
        "max_position_embeddings": 4096,
        "attention_dropout": config.attention_dropout,
        "tie_word_embeddings": False,  # safetensors refuses two names for one tensor
        "pad_token_id": PAD_TOKEN,
        "bos_token_id": BOS_TOKEN,
        "attn_implementation": "sdpa",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model initialisation"))
        return SidModel(Qwen3ForCausalLM(Qwen3Config(**settings)), catalog, config.dropout).eval()


@dataclass(frozen=True)
class PromptTokens:
    """Tokenised prompts: tokens (P, T) padded on the left, and which of them are real (P, T)."""

    tokens_PT: Tensor
    real_PT: Tensor

    @property
    def length_P(self) -> Tensor:
        return self.real_PT.sum(1)

    @property
    def positions_PT(self) -> Tensor:
        """Position of each real token, counted from BOS; 0 on padding."""
        return (self.real_PT.cumsum(1) - 1).clamp(min=0)

    def mask(self) -> Tensor:
        """Causal attention inside a prompt, bool (P, 1, T, T); padding sees itself alone, so that no softmax is empty."""
        T = self.tokens_PT.shape[1]
        causal = torch.ones(T, T, dtype=torch.bool, device=self.real_PT.device).tril()
        itself = torch.eye(T, dtype=torch.bool, device=self.real_PT.device)
        return (causal & self.real_PT[:, None, :] | itself)[:, None]

    def take(self, rows: Tensor | slice) -> "PromptTokens":
        """Some of the prompts, without the columns that are padding in all of them."""
        tokens, real = self.tokens_PT[rows], self.real_PT[rows]
        first = tokens.shape[1] - int(real.sum(1).max())
        return PromptTokens(tokens[:, first:], real[:, first:])

    def to(self, device: torch.device) -> "PromptTokens":
        return PromptTokens(self.tokens_PT.to(device), self.real_PT.to(device))


def tokenise_histories(history_PH: NDArray[np.int64], catalog: Catalog) -> PromptTokens:
    """Tokens of histories (P, H) of item indices, -1 on the left where they are shorter: BOS, then L tokens an item."""
    P, H = history_PH.shape
    offset = SPECIAL_TOKENS + np.concatenate([[0], np.cumsum(catalog.sizes)[:-1]])
    known = history_PH >= 0
    items = np.where(known[:, :, None], catalog.codes_IL[history_PH] + offset, PAD_TOKEN)
    tokens = np.concatenate([np.full((P, 1), PAD_TOKEN), items.reshape(P, H * catalog.levels)], axis=1)
    first = (H - known.sum(1)) * catalog.levels  # BOS stands right before the first item
    tokens[np.arange(P), first] = BOS_TOKEN
    real = np.arange(tokens.shape[1]) >= first[:, None]
    return PromptTokens(torch.from_numpy(tokens), torch.from_numpy(real))
