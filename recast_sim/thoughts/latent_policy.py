"""A policy that thinks first: pi(z | x) over a few thoughts, then pi(y | x, z) down the trie.

Axes: P prompts, Z thoughts, R rows of a prompt, T targets, Y leaves, D context dimensions.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from recast_sim.catalog import Catalog
from recast_sim.world.policy import PolicyConfig, TreePolicy

_SCATTER = 0.1  # of the start's item vectors: thoughts that are all alike would stay so


class LatentPolicy(nn.Module):
    """Thoughts are scored linearly in x; behind each one items are, by vectors of its own. Everything can be enumerated.

    With one thought this is the linear `TreePolicy` without a thought.
    """

    def __init__(self, catalog: Catalog, dim: int, thoughts: int, generator: torch.Generator) -> None:
        super().__init__()
        self.thoughts = thoughts
        self.vectors = nn.Parameter(torch.zeros(thoughts, dim))
        self.biases = nn.Parameter(torch.zeros(thoughts))
        self.items = TreePolicy(catalog, thoughts * (dim + 1), PolicyConfig(), generator)
        if thoughts > 1:
            with torch.no_grad():
                for vectors in self.items.vectors:
                    vectors.copy_(_SCATTER * torch.randn(vectors.shape, generator=generator))

    def thought_logprobs(self, x_PD: Tensor) -> Tensor:
        """log pi(z | x), (P, Z)."""
        return torch.addmm(self.biases, x_PD, self.vectors.T).log_softmax(1)

    def behind(self, x_PD: Tensor, thought_PR: Tensor) -> Tensor:
        """What `items` reads of a prompt behind given thoughts, (P * R, Z * (D + 1)): x and 1 in the thought's own block."""
        seen_PD = torch.cat([x_PD, x_PD.new_ones(len(x_PD), 1)], 1)
        block_PRZ = one_hot(thought_PR, self.thoughts).to(x_PD.dtype)
        return torch.einsum("prz,pd->przd", block_PRZ, seen_PD).flatten(0, 1).flatten(1)

    def target_logprobs(self, x_PD: Tensor, leaf_PT: Tensor) -> Tensor:
        """log pi(y | x, z) of given leaves behind every thought, (P, Z, T)."""
        P, T = leaf_PT.shape
        leaf_PZT = leaf_PT[:, None].expand(P, self.thoughts, T)
        steps = self.items.path_logprobs(self._behind_all(x_PD), leaf_PZT.flatten(0, 1))
        return steps.sum(2).view(P, self.thoughts, T)

    def leaf_logprobs(self, x_PD: Tensor) -> Tensor:
        """log pi(y | x, z) of every leaf behind every thought, (P, Z, Y)."""
        return self.items.leaf_logprobs(self._behind_all(x_PD)).view(len(x_PD), self.thoughts, -1)

    def marginal_logprobs(self, x_PD: Tensor) -> Tensor:
        """log pi(y | x) of every leaf, (P, Y)."""
        return (self.thought_logprobs(x_PD)[..., None] + self.leaf_logprobs(x_PD)).logsumexp(1)

    def marginal_target_logprobs(self, x_PD: Tensor, leaf_PT: Tensor) -> Tensor:
        """log pi(y | x) of given leaves, (P, T)."""
        return (self.thought_logprobs(x_PD)[..., None] + self.target_logprobs(x_PD, leaf_PT)).logsumexp(1)

    def _behind_all(self, x_PD: Tensor) -> Tensor:
        return self.behind(x_PD, torch.arange(self.thoughts).expand(len(x_PD), -1))
