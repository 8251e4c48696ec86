"""Policies of the laboratory: a hierarchical softmax over the catalog's trie, of any capacity.

The logit of a child is h(x) . v_child + b_child; h is the identity (linear), a projection of rank k, or an MLP. Axes:
P prompts, R rows of a prompt, B children of a node (padded), N nodes of a level, L levels, D context dimension, H dimension
of h, Y leaves, V nodes of all levels 1..L one after the other, W nodes of all levels 0..L-1 (those that have children).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, embedding_bag, pad

from recast_sim.catalog import Catalog
from recast_sim.configio import Checked
from recast_sim.errors import RecastError
from recast_sim.field_types import Width

_SMALL_TREE = 4096  # nodes up to which tables over all levels at once are kept
_FEW = 2**18  # logits so few that scoring nodes nobody asked for costs less than the calls that pick out the others
_SAFE_LOGIT = 80.0  # exp neither overflows nor underflows in float32 below it, so no maximum has to be taken out


class PolicyError(RecastError):
    """A bad knob of a policy; the message names the field, the value and the fix."""


@dataclass(frozen=True)
class PolicyConfig(Checked, error=PolicyError):
    """Capacity of a policy.

    Attributes:
        kind: what stands between a context and the scores of the codes.
        width: rank of "low_rank", hidden width of "mlp"; "linear" ignores it.
    """

    kind: Literal["linear", "low_rank", "mlp"] = "linear"
    width: Width = 32


class TreePolicy(nn.Module):
    """Hierarchical softmax over a trie; child vectors and biases start at 0, so the untrained policy ignores x."""

    def __init__(self, catalog: Catalog, dim: int, config: PolicyConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.levels, self.leaves = catalog.levels, catalog.leaves
        self.encoder, width = _encoder(config, dim, generator)
        counts = [len(codes) for codes in catalog.node_code[1:]]
        self.nodes = sum(counts)
        self.vectors = nn.ParameterList(nn.Parameter(torch.zeros(n, width)) for n in counts)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in counts)
        for level in range(self.levels):
            self._constant(f"children_{level}", catalog.children(level))
            self._constant(f"offset_{level}", catalog.child_offset[level])
            self._constant(f"parent_{level}", catalog.node_parent[level + 1])
        self._constant("leaf_nodes", catalog.leaf_nodes)
        inner = np.cumsum([0] + [len(offset) - 1 for offset in catalog.child_offset])
        start = np.cumsum([0, *counts])
        self._constant("parent_V", np.concatenate([p + i for p, i in zip(catalog.node_parent[1:], inner, strict=False)]))
        firsts = [offset[:-1] + s for offset, s in zip(catalog.child_offset, start, strict=False)]
        self._constant("offset_W", np.concatenate([*firsts, [self.nodes]]))
        self.widths = [self.child_nodes(level).shape[1] for level in range(self.levels)]
        if self.nodes <= _SMALL_TREE:
            children_WB, parent_YL, slot_YL = _flat_tree(catalog)
            self._constant("flat_children", children_WB)
            self._constant("flat_parent", parent_YL)
            self._constant("flat_slot", slot_YL)

    def encode(self, x_PD: Tensor) -> Tensor:
        """h(x), (P, H)."""
        return self.encoder(x_PD)

    def child_nodes(self, level: int) -> Tensor:
        """Children of each node of `level`, int64 (N, B), -1 where padded; those of a node are consecutive."""
        return self.get_buffer(f"children_{level}")

    def first_child(self, level: int) -> Tensor:
        """First child of each node of `level`, int64 (N,)."""
        return self.get_buffer(f"offset_{level}")[:-1]

    def child_logprobs(self, h_PH: Tensor, level: int, node_PR: Tensor) -> Tensor:
        """Log-probabilities of the children of given nodes of `level`, (P, R, B), -inf where padded."""
        child_PRB = self.child_nodes(level)[node_PR]
        vectors, bias = self.vectors[level], self.biases[level]
        if len(bias) <= max(_FEW // max(1, len(h_PH)), child_PRB.shape[1:].numel()):  # score every node, gather no vectors
            logits = _with_padding(torch.addmm(bias, h_PH, vectors.T))  # column -1
            logits = logits.gather(1, (child_PRB % logits.shape[1]).flatten(1)).view_as(child_PRB)
            return logits.log_softmax(2)
        safe = child_PRB.clamp(min=0)
        # embedding, not indexing: its backward sums rows without sorting them
        logits = torch.einsum("ph,prbh->prb", h_PH, embedding(safe, vectors)) + embedding(safe, bias[:, None])[..., 0]
        return logits.masked_fill(child_PRB < 0, -torch.inf).log_softmax(2)

    def path_logprobs(self, x_PD: Tensor, leaf_PR: Tensor) -> Tensor:
        """Log-probability of each step on the way to given leaves, (P, R, L); their sum is log pi(leaf | x)."""
        h = self.encode(x_PD)
        prompts, rows = leaf_PR.shape
        if self.nodes <= min(_SMALL_TREE, max(_FEW // max(1, prompts), rows * sum(self.widths))):
            return self._flat_path_logprobs(h, leaf_PR)
        nodes, parent, steps = self.get_buffer("leaf_nodes")[leaf_PR], torch.zeros_like(leaf_PR), []
        for level in range(self.levels):
            node = nodes[..., level]
            slot = node - self.first_child(level)[parent]
            steps.append(self.child_logprobs(h, level, parent).gather(2, slot[..., None])[..., 0])
            parent = node
        return torch.stack(steps, dim=2)

    def leaf_logprobs(self, x_PD: Tensor) -> Tensor:
        """log pi of every leaf, (P, leaves): the enumeration that exact analysis and ranking use."""
        return self.leaf_logprobs_of(self.encode(x_PD))

    def step_logprobs_of(self, h_PH: Tensor) -> Tensor:
        """log pi(node | its parent) of every node of levels 1..L one level after the other, (V, P), from h(x)."""
        # prompts last: sums over children then run along contiguous prompts
        logits_VP = torch.addmm(torch.cat(list(self.biases))[:, None], torch.cat(list(self.vectors)), h_PH.T)
        return _ChildLogSoftmax.apply(logits_VP, self.get_buffer("parent_V"), self.get_buffer("offset_W"))

    def sum_over_children(self, level: int, value_NP: Tensor) -> Tensor:
        """Values of the nodes of `level` + 1 added up for their parents, (N of `level`, P)."""
        return _over_children(value_NP, self.get_buffer(f"offset_{level}"), "sum")

    def leaf_logprobs_of(self, h_PH: Tensor) -> Tensor:
        """`leaf_logprobs` from h(x)."""
        total_NP, *deeper = self.step_logprobs_of(h_PH).split([len(bias) for bias in self.biases])
        for level, local_NP in enumerate(deeper, start=1):
            total_NP = local_NP + _ToChildren.apply(
                total_NP, *(self.get_buffer(f"{name}_{level}") for name in ("parent", "offset"))
            )
        return total_NP.T

    def _flat_path_logprobs(self, h_PH: Tensor, leaf_PR: Tensor) -> Tensor:
        """`path_logprobs` of a small tree: all nodes of all levels scored at once, then the siblings of each step."""
        logits_PV = _with_padding(torch.addmm(torch.cat(list(self.biases)), h_PH, torch.cat(list(self.vectors)).T))
        leaf = leaf_PR.flatten()  # index_select below: it copies whole rows, indexing goes number by number
        parent, slot = (self.get_buffer(f"flat_{name}").index_select(0, leaf).flatten() for name in ("parent", "slot"))
        sibling = self.get_buffer("flat_children").index_select(0, parent)  # (P * R * L, B)
        logits = logits_PV.gather(1, sibling.view(len(h_PH), leaf_PR.shape[1] * self.levels * sibling.shape[1])).view_as(
            sibling
        )
        return -cross_entropy(logits, slot, reduction="none").view(*leaf_PR.shape, self.levels)

    def _constant(self, name: str, array: Any) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False)


class _ChildLogSoftmax(torch.autograd.Function):
    """Log-softmax over the children of each node, (V, P) from logits (V, P); children of a node lie next to each other."""

    @staticmethod
    def forward(ctx: Any, logits_VP: Tensor, parent_V: Tensor, offset_W: Tensor) -> Tensor:
        if logits_VP.numel() and not bool(logits_VP.abs().amax() < _SAFE_LOGIT):
            logits_VP = logits_VP - _over_children(logits_VP, offset_W, "max").index_select(0, parent_V)
        result = logits_VP - _over_children(logits_VP.exp(), offset_W, "sum").log().index_select(0, parent_V)
        ctx.save_for_backward(result, parent_V, offset_W)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        result, parent_V, offset_W = ctx.saved_tensors
        of_parent = _over_children(gradients[0], offset_W, "sum").index_select(0, parent_V)
        return torch.addcmul(gradients[0], result.exp(), of_parent, value=-1), None, None


class _ToChildren(torch.autograd.Function):
    """Each node's row handed to all its children: (N of the next level, P) from (N, P)."""

    @staticmethod
    def forward(ctx: Any, value_NP: Tensor, parent_N: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(offset)
        return value_NP.index_select(0, parent_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _over_children(gradients[0], ctx.saved_tensors[0], "sum"), None, None


def _over_children(value_NP: Tensor, offset: Tensor, mode: str) -> Tensor:
    """Sum or maximum over the children of each node; an embedding bag is torch's fast sum over consecutive rows."""
    rows = torch.arange(len(value_NP), device=value_NP.device)
    return embedding_bag(rows, value_NP.contiguous(), offset, mode=mode, include_last_offset=True)


def _with_padding(logits_PN: Tensor) -> Tensor:
    """One more column, -inf, for the children that are not there."""
    return pad(logits_PN, (0, 1), value=-torch.inf)


def _flat_tree(catalog: Catalog) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables over all levels: children of every inner node (W, B), numbers of V, len(V) where padded; of each leaf's steps,
    the parent's number among W and the place among the parent's children, both (Y, L)."""
    tables = [catalog.children(level) for level in range(catalog.levels)]
    width, start = max(table.shape[1] for table in tables), np.cumsum([0] + [len(codes) for codes in catalog.node_code[1:]])
    children = [
        np.pad(np.where(t < 0, start[-1], t + s), ((0, 0), (0, width - t.shape[1])), constant_values=start[-1])
        for t, s in zip(tables, start, strict=False)
    ]
    nodes_YL = catalog.leaf_nodes
    parent_YL = np.concatenate([np.zeros((len(nodes_YL), 1), dtype=np.int64), nodes_YL[:, :-1]], axis=1)
    slot_YL = np.stack(
        [nodes_YL[:, level] - catalog.child_offset[level][parent_YL[:, level]] for level in range(catalog.levels)], axis=1
    )
    inner = np.cumsum([0] + [len(table) for table in tables[:-1]])
    return np.concatenate(children), parent_YL + inner, slot_YL


def _encoder(config: PolicyConfig, dim: int, generator: torch.Generator) -> tuple[nn.Module, int]:
    if config.kind == "linear":
        return nn.Identity(), dim
    first = _dense(dim, config.width, generator)
    if config.kind == "low_rank":
        return first, config.width
    return nn.Sequential(first, nn.GELU(), _dense(config.width, config.width, generator)), config.width


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
        layer.bias.zero_()
    return layer
