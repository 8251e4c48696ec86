"""Policies of the laboratory: a hierarchical softmax over the catalog's trie, of any capacity.

The logit of a child is h(x) . v_child + b_child; h is the identity (linear), a projection of rank k, or an MLP. Axes:
P prompts, R rows of a prompt, B children of a node (padded), L levels, D context dimension, H dimension of h.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recast_sim.catalog import Catalog


class PolicyError(ValueError):
    """A bad knob of a policy; the message names the field, the value and the mend."""


@dataclass(frozen=True)
class PolicyConfig:
    """Capacity of a policy. `width` is the rank of "low_rank" and the hidden width of "mlp"; "linear" ignores it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Literal["linear", "low_rank", "mlp"] = "linear"
    width: int = 32

    def __post_init__(self) -> None:
        if self.width < 1:
            raise PolicyError(f"PolicyConfig.width: {self.width} must be at least 1")


class TreePolicy(nn.Module):
    """Hierarchical softmax over a trie; child vectors and biases start at 0, so the untrained policy ignores x."""

    def __init__(self, catalog: Catalog, dim: int, config: PolicyConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.levels, self.leaves = catalog.levels, catalog.leaves
        self.encoder, width = _encoder(config, dim, generator)
        counts = [len(codes) for codes in catalog.node_code[1:]]
        self.vectors = nn.ParameterList(nn.Parameter(torch.zeros(n, width)) for n in counts)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in counts)
        for level in range(self.levels):
            self.register_buffer(f"children_{level}", torch.from_numpy(catalog.children(level)), persistent=False)
        self.register_buffer("leaf_nodes", torch.from_numpy(catalog.leaf_nodes), persistent=False)

    def encode(self, x_PD: Tensor) -> Tensor:
        """h(x), (P, H)."""
        return self.encoder(x_PD)

    def child_nodes(self, level: int) -> Tensor:
        """Children of each node of `level`, int64 (N, B), -1 where padded."""
        return self.get_buffer(f"children_{level}")

    def child_logprobs(self, h_PH: Tensor, level: int, node_PR: Tensor) -> Tensor:
        """Log-probabilities of the children of given nodes of `level`, (P, R, B), -inf where padded."""
        child_PRB = self.child_nodes(level)[node_PR]
        vectors, bias = self.vectors[level], self.biases[level]
        safe = child_PRB.clamp(min=0)
        if len(bias) <= child_PRB[0].numel():  # cheaper to score every node of the level than to gather vectors
            logits = (h_PH @ vectors.T + bias).gather(1, safe.flatten(1)).view_as(safe)
        else:
            # embedding, not indexing: its backward sums rows without sorting them
            logits = torch.einsum("ph,prbh->prb", h_PH, embedding(safe, vectors)) + embedding(safe, bias[:, None])[..., 0]
        return logits.masked_fill(child_PRB < 0, -torch.inf).log_softmax(2)

    def path_logprobs(self, x_PD: Tensor, leaf_PR: Tensor) -> Tensor:
        """Log-probability of each step on the way to given leaves, (P, R, L); their sum is log pi(leaf | x)."""
        h, nodes = self.encode(x_PD), self.get_buffer("leaf_nodes")[leaf_PR]
        parent, steps = torch.zeros_like(leaf_PR), []
        for level in range(self.levels):
            node = nodes[..., level]
            slot = node - self.child_nodes(level)[parent][..., 0]  # children of a node are consecutive
            steps.append(self.child_logprobs(h, level, parent).gather(2, slot[..., None])[..., 0])
            parent = node
        return torch.stack(steps, dim=2)

    def leaf_logprobs(self, x_PD: Tensor) -> Tensor:
        """log pi of every leaf, (P, leaves): the enumeration that exact analysis and ranking use."""
        h_HP = self.encode(x_PD).T  # prompts last: sums over children then run along contiguous prompts
        total_NP = h_HP.new_zeros(1, h_HP.shape[1])
        for level in range(self.levels):
            child_NB = self.child_nodes(level)
            logits = self.vectors[level] @ h_HP + self.biases[level][:, None]
            padded = logits[child_NB.clamp(min=0)].masked_fill((child_NB < 0)[..., None], -torch.inf)
            before = total_NP - padded.logsumexp(1)
            total_NP = logits + before.repeat_interleave((child_NB >= 0).sum(1), dim=0)  # nodes lie parent by parent
        return total_NP.T


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
