"""The kept nodes of one level of a search down the trie, each an extra position behind its prompt.

Axis letters: P prompts, W kept nodes, B children of a node, V nodes kept of their children, E extra positions, D hidden width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recast_train.model import SidModel
from recast_train.model.shared_prompts import PromptCache


@dataclass(frozen=True)
class Children:
    """Children of the kept nodes.

    Attributes:
        first_PW: the first child of each node; the others follow it.
        step_PWB: log-probability of the step to each child; -inf where there is none.
        logprob_PWB: the same of the path from the root; -inf also where the slot is empty.
    """

    first_PW: Tensor
    step_PWB: Tensor
    logprob_PWB: Tensor

    @property
    def node_PWB(self) -> Tensor:
        """The children's nodes; -1 where the path's log-probability is -inf (or not a number)."""
        node_PWB = self.first_PW[..., None] + torch.arange(self.step_PWB.shape[2], device=self.first_PW.device)
        return torch.where(self.logprob_PWB > -torch.inf, node_PWB, -1)


@dataclass(frozen=True)
class Frontier:
    """Kept nodes of one level.

    Attributes:
        node_PW: 0 where the slot is empty.
        logprob_PW: of the path from the root; -inf where the slot is empty.
        parent_PW: the slot of each node's parent in the level above.
        hidden_PWD: hidden state after each node, its parents' until it is read.
        sees_PWE: the extra positions on the path, the node's own left out; its parents' until it is read.
    """

    node_PW: Tensor
    logprob_PW: Tensor
    parent_PW: Tensor
    hidden_PWD: Tensor
    sees_PWE: Tensor

    @classmethod
    def at_root(cls, cache: PromptCache) -> "Frontier":
        root = torch.zeros(len(cache.last_PD), 1, dtype=torch.int64, device=cache.last_PD.device)
        logprob = torch.zeros_like(root, dtype=torch.float32)
        return cls(root, logprob, root, cache.last_PD[:, None], root[..., None].bool()[..., :0])

    def children(self, model: SidModel, level: int, temperature: float = 1.0) -> Children:
        """Children of the nodes, which are of `level`."""
        step_PWB = model.child_logprobs(self.hidden_PWD, level, self.node_PW, temperature)
        return Children(model.table("first_child", level)[self.node_PW], step_PWB, self.logprob_PW[..., None] + step_PWB)

    def descend(self, children: Children, kept_PV: Tensor) -> "Frontier":
        """The children at `kept_PV`, columns of the flattened (W, B); they are not read yet."""
        B = children.step_PWB.shape[2]
        parent_PV, logprob_PV = kept_PV // B, children.logprob_PWB.flatten(1).gather(1, kept_PV)
        node_PV = children.first_PW.gather(1, parent_PV) + kept_PV % B
        return Frontier(
            node_PW=torch.where(logprob_PV > -torch.inf, node_PV, 0),
            logprob_PW=logprob_PV,
            parent_PW=parent_PV,
            hidden_PWD=self.hidden_PWD,
            sees_PWE=self.sees_PWE,
        )

    def read(self, cache: PromptCache, level: int) -> "Frontier":
        """Feed the nodes, which are of `level`, for their own hidden states."""
        sees_PWE = self.sees_PWE.gather(1, self.parent_PW[..., None].expand(-1, -1, self.sees_PWE.shape[2]))
        if level > 1:  # the root is no extra position; below it the parent is one
            parents = torch.arange(self.sees_PWE.shape[1], device=self.parent_PW.device)
            sees_PWE = torch.cat([sees_PWE, self.parent_PW[..., None] == parents], 2)
        return replace(self, hidden_PWD=cache.extend(level, self.node_PW, sees_PWE), sees_PWE=sees_PWE)
