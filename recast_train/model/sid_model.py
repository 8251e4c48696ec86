"""A causal LM over the tokens of one catalog, and its trie-constrained softmax.

Axis letters: P prompts, Q query positions, K key positions, L levels, B children of a node, C codes of a level,
D hidden width, X positions, N rows, U distinct states of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from recast_sim.catalog import Catalog
from recast_train.model.attention import set_split, whole_mask
from recast_train.model.level_logits import OutputMatrix, level_logits
from recast_train.model.vocabulary import Vocabulary, beside

T = TypeVar("T")
FEW = 128  # where no node has more than one in so many of a level's codes, logits cost less child by child


class SidModel(nn.Module):
    """A causal LM of transformers over the tokens of one catalog. Build it with `build_model`.

    Tables of the trie: `first_child_l` (N + 1) of each level 0..L-1, the children of node v being the nodes first_child_l[v] ..
    first_child_l[v + 1] - 1 of level l + 1; `node_code_l` (N) of each level 1..L; `code_token_l` (C) of each level 0..L-1;
    `leaf_codes`, `leaf_tokens` and `leaf_nodes` (Y, L).
    A weight that the LM ties to another stands in the state dict once.
    """

    def __init__(self, lm: Any, catalog: Catalog, vocabulary: Vocabulary, dropout: float) -> None:
        super().__init__()
        set_split(lm)
        self.lm: Any = lm
        self.vocabulary = vocabulary
        self.dropout = nn.Dropout(dropout)
        self.sizes = catalog.sizes
        self.levels = catalog.levels
        self.nodes = tuple(len(code) for code in catalog.node_code)
        tables = {"leaf_codes": catalog.leaf_codes, "leaf_nodes": catalog.leaf_nodes}
        tables["leaf_tokens"] = vocabulary.of_codes(catalog.leaf_codes)
        for level in range(catalog.levels):
            tables[f"first_child_{level}"] = catalog.child_offset[level]
            tables[f"node_code_{level + 1}"] = catalog.node_code[level + 1]
            tables[f"code_token_{level}"] = vocabulary.level_tokens[level]
        self._spans = tuple(map(_span, vocabulary.level_tokens))
        self._host = {name: torch.from_numpy(np.ascontiguousarray(table)) for name, table in tables.items()}
        for name, table in self._host.items():
            self.register_buffer(name, table, persistent=False)
        self.widest = tuple(int(np.diff(offset).max()) for offset in catalog.child_offset)
        self.register_buffer("not_text", torch.from_numpy(vocabulary.not_text()), persistent=False)
        self.tied = _tied_names(self)
        self.parameter_count = sum(parameter.numel() for parameter in self.parameters())
        self.register_state_dict_post_hook(_drop_tied)
        self.register_load_state_dict_pre_hook(_restore_tied)

    @property
    def device(self) -> torch.device:
        return self.table("leaf_codes").device

    def table(self, name: str, level: int | None = None, index: Tensor | None = None) -> Tensor:
        """A table of the trie, int64, on the model's device, or on the CPU for an `index` that is there, so that nobody waits
        for a device to look something up; or `Vocabulary.not_text`, bool."""
        key = name if level is None else f"{name}_{level}"
        return self._host[key] if index is not None and index.device.type == "cpu" else getattr(self, key)

    def forward(self, compute: Callable[..., T], *arguments: Any) -> T:
        """compute(model, *arguments): the one entry, so that wrappers of distributed training see every pass."""
        return compute(self, *arguments)

    def hidden(self, tokens_PQ: Tensor, positions_PQ: Tensor, mask: Tensor | None, cache: Any = None) -> Tensor:
        """Last hidden states (P, Q, D).

        `mask` is bool (P, 1, Q, K), true where query q may attend to key k (K counts what `cache` holds, then the new
        tokens); None is plain causal attention without padding on the left. A mask of fewer rows than tokens is that of the
        last ones; those before them are plain causal among themselves (`model.attention`).
        """
        embedded = self.dropout(self.lm.get_input_embeddings()(tokens_PQ))
        if mask is not None and self.lm.config._attn_implementation == "eager":  # it adds the mask to the scores
            mask = whole_mask(mask, tokens_PQ.shape[1])
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

    def output_matrix(self) -> OutputMatrix:
        """To be taken before the hidden states are computed: `OutputMatrix` says why."""
        return OutputMatrix(self.lm.get_output_embeddings().weight)

    def level_logits(self, hidden: Sequence[Tensor], level: int = 0, matrix: OutputMatrix | None = None) -> list[Tensor]:
        """Logits (..., C) in fp32 of the tokens of levels from `level` on, each from its own hidden states (..., D).

        Never of the whole vocabulary.
        """
        rows = [self._spans[at] or self.table("code_token", at) for at in range(level, level + len(hidden))]
        return level_logits(matrix or self.output_matrix(), rows, hidden)

    def legal_logprobs(self, logits_C: Tensor, level: int, node: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-softmax over the legal children (..., B) of each `node` (...) of `level`, in their order; -inf beyond them.

        B is that of the level's widest node. No table over all nodes holds the children: one wide node among a million narrow
        ones would make it huge.
        """
        code, legal = self._child_codes(level, node)
        return _softmax(logits_C.gather(-1, code), legal, temperature)

    def child_logprobs(self, hidden_D: Tensor, level: int, node: Tensor, temperature: float = 1.0) -> Tensor:
        """The same (..., B) from hidden states (..., D), for rollouts: few children are scored one by one."""
        if self.widest[level] * max(FEW, hidden_D.shape[-1]) > self.sizes[level]:  # B * D against C: nor more memory
            return self.legal_logprobs(self.level_logits([hidden_D], level)[0], level, node, temperature)
        code, legal = self._child_codes(level, node)
        weight_BD = self.lm.get_output_embeddings().weight[self.table("code_token", level)[code]]
        with torch.autocast(hidden_D.device.type, enabled=False):
            logits = (weight_BD.float() @ hidden_D.float()[..., None])[..., 0]
        return _softmax(logits, legal, temperature)

    def _child_codes(self, level: int, node: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (..., B) of the children of each `node` (...), and which of them there are."""
        first, code_N = self.table("first_child", level), self.table("node_code", level + 1)
        start, column_B = first[node][..., None], torch.arange(self.widest[level], device=node.device)
        return code_N[(start + column_B).clamp(max=len(code_N) - 1)], column_B < first[node + 1][..., None] - start

    def leaf_logprobs(
        self, hidden_XD: Tensor, at_NL: Tensor, leaf_N: Tensor, temperature: float = 1.0, matrix: OutputMatrix | None = None
    ) -> Tensor:
        """Log-probabilities (N, L) of leaves, token by token; `at_NL` says which hidden state predicts each.

        Rows that are predicted from one state share its softmax. `at_NL` and `leaf_N` are best on the CPU: how many states are
        distinct is known there, and a device would have to be asked.
        """
        nodes_NL, steps = self.table("leaf_nodes", index=leaf_N)[leaf_N], []
        parents_NL = torch.cat([torch.zeros_like(nodes_NL[:, :1]), nodes_NL[:, :-1]], 1)
        states = [at_N.unique(return_inverse=True) for at_N in at_NL.unbind(1)]
        every = self.level_logits([hidden_XD[beside(at_U, hidden_XD)] for at_U, _ in states], matrix=matrix)
        for level, (logits_UC, (at_U, state_N)) in enumerate(zip(every, states, strict=True)):
            parent_N = parents_NL[:, level]
            parent_U = torch.empty_like(at_U).index_put_((state_N,), parent_N)  # the same for all rows of a state
            logprobs_UB = self.legal_logprobs(logits_UC, level, beside(parent_U, hidden_XD), temperature)
            column_N = nodes_NL[:, level] - self.table("first_child", level, parent_N)[parent_N]
            steps.append(logprobs_UB[beside(state_N, hidden_XD), beside(column_N, hidden_XD)])
        return torch.stack(steps, 1)

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


def _span(tokens_C: np.ndarray) -> slice | None:
    """Rows of tokens that follow each other, which need no copy; None where they do not."""
    first = int(tokens_C[0])
    return slice(first, first + len(tokens_C)) if (np.diff(tokens_C) == 1).all() else None


def _softmax(logits_B: Tensor, legal_B: Tensor, temperature: float) -> Tensor:
    return torch.where(legal_B, logits_B / temperature, -torch.inf).log_softmax(-1)


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
