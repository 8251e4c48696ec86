"""A causal LM over the tokens of one catalog, and its trie-constrained softmax.

Axis letters: P prompts, Q query positions, K key positions, L levels, N trie nodes, B children of a node, C codes of a level,
D hidden width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from recast_sim.catalog import Catalog
from recast_train.model.vocabulary import Vocabulary

T = TypeVar("T")
FEW = 128  # where no node has more than one in so many of a level's codes, logits cost less child by child


class SidModel(nn.Module):
    """A causal LM of transformers over the tokens of one catalog. Build it with `build_model`.

    Tables of the trie: `first_child_l` (N + 1) of each level 0..L-1, the children of node v being the nodes first_child_l[v] ..
    first_child_l[v + 1] - 1 of level l + 1; `node_code_l` (N) of each level 1..L; `leaf_codes` and `leaf_nodes` (Y, L).
    A weight that the LM ties to another stands in the state dict once.
    """

    def __init__(self, lm: Any, catalog: Catalog, vocabulary: Vocabulary, dropout: float) -> None:
        super().__init__()
        self.lm: Any = lm
        self.vocabulary = vocabulary
        self.dropout = nn.Dropout(dropout)
        self.sizes = catalog.sizes
        self.levels = catalog.levels
        self.nodes = tuple(len(code) for code in catalog.node_code)
        self.offset = vocabulary.offset
        tables = {"leaf_codes": catalog.leaf_codes, "leaf_nodes": catalog.leaf_nodes}
        for level in range(catalog.levels):
            tables[f"first_child_{level}"] = catalog.child_offset[level]
            tables[f"node_code_{level + 1}"] = catalog.node_code[level + 1]
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(table)), persistent=False)
        self.widest = tuple(int(np.diff(offset).max()) for offset in catalog.child_offset)
        self.register_buffer("not_text", torch.from_numpy(vocabulary.not_text(catalog.sizes)), persistent=False)
        self.tied = _tied_names(self)
        self.parameter_count = sum(parameter.numel() for parameter in self.parameters())
        self.register_state_dict_post_hook(_drop_tied)
        self.register_load_state_dict_pre_hook(_restore_tied)

    @property
    def device(self) -> torch.device:
        return self.table("leaf_codes").device

    def table(self, name: str, level: int | None = None) -> Tensor:
        """A table of the trie on the model's device, int64; or `Vocabulary.not_text`, bool."""
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
        if mask is not None and self.lm.config._attn_implementation == "eager":  # it adds the mask to the scores
            mask = torch.zeros_like(mask, dtype=embedded.dtype).masked_fill(~mask, torch.finfo(embedded.dtype).min)
        with self._checkpointing(kept=cache is None and torch.is_grad_enabled()):
            output = self.lm.base_model(
                inputs_embeds=embedded,
                attention_mask=mask,  # with four axes it is taken as it is
                position_ids=positions_PQ,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        return self.dropout(output.last_hidden_state)

    def level_logits(self, hidden_D: Tensor, level: int) -> Tensor:
        """Logits (..., C) of one level's tokens in fp32, from hidden states (..., D): never of the whole vocabulary."""
        with torch.autocast(hidden_D.device.type, enabled=False):
            return hidden_D.float() @ self._level_weight(level).float().T

    def child_logprobs(self, hidden_D: Tensor, level: int, node: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-softmax over the legal children (..., B) of each `node` (...) of `level`, in their order; -inf beyond them.

        B is that of the level's widest node. No table over all nodes holds the children: one wide node among a million narrow
        ones would make it huge.
        """
        first, code_N = self.table("first_child", level), self.table("node_code", level + 1)
        start, column_B = first[node][..., None], torch.arange(self.widest[level], device=node.device)
        code = code_N[(start + column_B).clamp(max=len(code_N) - 1)]
        if self.widest[level] * max(FEW, hidden_D.shape[-1]) <= self.sizes[level]:  # nor more memory: B * D against C
            with torch.autocast(hidden_D.device.type, enabled=False):
                logits = (self._level_weight(level)[code].float() @ hidden_D.float()[..., None])[..., 0]
        else:
            logits = self.level_logits(hidden_D, level).gather(-1, code)
        legal = column_B < first[node + 1][..., None] - start
        return torch.where(legal, logits / temperature, -torch.inf).log_softmax(-1)

    def step_logprobs(self, hidden_D: Tensor, level: int, parent: Tensor, child: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probability (...) of going from `parent` (a node of `level`) to `child` (a node of `level + 1`)."""
        column = child - self.table("first_child", level)[parent]
        return self.child_logprobs(hidden_D, level, parent, temperature).gather(-1, column[..., None])[..., 0]

    def _level_weight(self, level: int) -> Tensor:
        """Rows (C, D) of the output matrix for a level's tokens."""
        start = self.offset[level]
        return self.lm.get_output_embeddings().weight[start : start + self.sizes[level]]

    @contextmanager
    def _checkpointing(self, kept: bool) -> Iterator[None]:
        """Let layers with gradient checkpointing use it in evaluation mode too, and nowhere but where `kept`.

        transformers reads the layer's own `training` flag, and drops the cache of a layer that checkpoints. The modules inside
        keep their flag, hence their dropout.
        """
        layers = [module for module in self.lm.modules() if getattr(module, "gradient_checkpointing", False)]
        before = [layer.training for layer in layers]
        for layer in layers:
            layer.training = kept
        try:
            yield
        finally:
            for layer, training in zip(layers, before, strict=True):
                layer.training = training


def _tied_names(module: nn.Module) -> dict[str, str]:
    """Each name of a parameter that has another name already, to that other name."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in every if first[id(parameter)] != name}


def _drop_tied(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in module.tied:
        state.pop(prefix + name, None)


def _restore_tied(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, kept in module.tied.items():
        if prefix + kept in state:
            state[prefix + name] = state[prefix + kept]
