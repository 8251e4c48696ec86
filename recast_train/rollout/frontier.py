"""The kept nodes of one level of a search down the trie, each an extra position behind its prompt.

Axis letters: P prompts, W kept nodes, B children of a node, V nodes kept of their children, E extra positions, D hidden width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recast_train.model import SidModel
from recast_train.packed import PromptCache


@dataclass(frozen=True)
class Children:
    """Children of the kept nodes, (P, W, B): their nodes (-1: none), and the log-probability of the step and of the path."""

    node_PWB: Tensor
    step_PWB: Tensor
    logprob_PWB: Tensor


@dataclass(frozen=True)
class Frontier:
    """Kept nodes of one level.

    Attributes:
        hidden_PWD: hidden state after each node.
        node_PW: 0 where the slot is empty.
        logprob_PW: of the path from the root; -inf where the slot is empty.
        sees_PWE: the extra positions on the path, the node's own left out.
    """

    hidden_PWD: Tensor
    node_PW: Tensor
    logprob_PW: Tensor
    sees_PWE: Tensor

    @classmethod
    def at_root(cls, cache: PromptCache) -> "Frontier":
        root = torch.zeros(len(cache.last_PD), 1, dtype=torch.int64, device=cache.last_PD.device)
        return cls(cache.last_PD[:, None], root, torch.zeros_like(root, dtype=torch.float32), root[..., None].bool()[..., :0])

    def children(self, model: SidModel, level: int, temperature: float = 1.0) -> Children:
        """Children of the nodes of `level`; those of an empty slot are none, with a path of log-probability -inf."""
        step_PWB = model.child_logprobs(self.hidden_PWD, level, self.node_PW, temperature)
        empty_PW1 = ~torch.isfinite(self.logprob_PW)[..., None]
        child_PWB = model.child_nodes(level, self.node_PW).masked_fill(empty_PW1, -1)
        path_PWB = (self.logprob_PW[..., None] + step_PWB).masked_fill(child_PWB < 0, -torch.inf)
        return Children(child_PWB, step_PWB, path_PWB)

    def descend(self, children: Children, kept_PV: Tensor, level: int) -> "Frontier":
        """The children at `kept_PV`, columns of the flattened (W, B) of `level`; hidden states are still the parents'."""
        parent_PV = kept_PV // children.node_PWB.shape[2]
        path = self.sees_PWE.gather(1, parent_PV[..., None].expand(-1, -1, self.sees_PWE.shape[2]))
        if level > 0:  # the root is no extra position; below it the parent is one
            path = torch.cat([path, torch.nn.functional.one_hot(parent_PV, self.node_PW.shape[1]).bool()], 2)
        return Frontier(
            hidden_PWD=self.hidden_PWD,
            node_PW=children.node_PWB.flatten(1).gather(1, kept_PV).clamp(min=0),
            logprob_PW=children.logprob_PWB.flatten(1).gather(1, kept_PV),
            sees_PWE=path,
        )

    def read(self, cache: PromptCache, level: int) -> "Frontier":
        """Feed the nodes, which are of `level`, for their own hidden states."""
        return replace(self, hidden_PWD=cache.extend(level, self.node_PW, self.sees_PWE))
