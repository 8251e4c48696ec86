"""The rows of a batch that one rank computes, in passes of bounded size.

Axis letters: P prompts that have rows, N rows, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recast_train.engine import Engine
from recast_train.model import PromptTokens, beside
from recast_train.model.shared_prefixes import PrefixTree
from recast_train.model.shared_prompts import packed_logprobs, sid_prefixes
from recast_train.rl.thought_rows import ThoughtRows, thought_logprobs


@dataclass(frozen=True)
class RankBatch:
    """Rows `leaf_N` behind `prompts[prompt_N]`, all on the CPU, and how they are computed; models are `Engine.prepare`'s.

    Attributes:
        temperature: that the log-probabilities are at.
        limit: positions of one pass at most, as `RlConfig.micro_batch_tokens`.
        thoughts: of the rows, where their tokens are trained: then log-probabilities are (rows, S + L), the thought's first.
    """

    engine: Engine
    prompts: PromptTokens
    prompt_N: Tensor
    leaf_N: Tensor
    temperature: float
    limit: int
    thoughts: ThoughtRows | None = None

    def tree(self, model: nn.Module, rows: Tensor) -> PrefixTree:
        """What some of the rows cost to compute."""
        return sid_prefixes(self.engine.unwrap(model), self.prompt_N[rows], self.leaf_N[rows])

    def cut(self, model: nn.Module, rows: Tensor) -> list[tuple[Tensor, bool]]:
        """Places in `rows` of each pass over them, equally many passes on all ranks; false where one only fills up."""
        if not self.limit:
            return [(torch.arange(len(rows)), True)]
        found = micro_batches(self.prompts.length_P, self.tree(model, rows), self.limit)
        most = int(self.engine.gather(torch.tensor([len(found)])).max())
        return [(part, True) for part in found] + [(found[0][:1], False)] * (most - len(found))

    def trained_tokens(self, model: nn.Module, rows: Tensor) -> int:
        """How many of the log-probabilities of some of the rows are trained: thoughts differ in length."""
        if self.thoughts is None:
            return len(rows) * self.engine.unwrap(model).levels
        return int(self.thoughts.trains_NX[rows].sum())

    def logprobs(self, model: nn.Module, rows: Tensor) -> Tensor:
        """Log-probabilities (rows, L) of some of the rows, in one pass with gradient."""
        of_rows = (self.prompts, self.prompt_N[rows], self.leaf_N[rows], self.temperature)
        if self.thoughts is None:
            return model(packed_logprobs, *of_rows)
        return model(thought_logprobs, *of_rows, self.thoughts.take(rows))

    @torch.no_grad()
    def fixed_logprobs(self, model: nn.Module) -> Tensor:
        """Log-probabilities (N, L) of all rows, on the model's device, in passes without gradient."""
        width = self.engine.unwrap(model).levels if self.thoughts is None else self.thoughts.trains_NX.shape[1]
        found_NL = torch.empty(len(self.leaf_N), width, device=self.engine.device)
        for rows, counted in self.cut(model, torch.arange(len(self.leaf_N))):
            part = self.logprobs(model, rows)
            if counted:
                found_NL[beside(rows, found_NL)] = part
        return found_NL


def micro_batches(length_P: Tensor, tree: PrefixTree, limit: int) -> list[Tensor]:
    """Numbers of the rows, ascending, of each pass over at most `limit` positions, padding included.

    Prompts of similar length go together, so that little is padding. A prompt that alone has more positions is a pass of its
    own: a prompt is never cut.

    Args:
        length_P: real tokens of every prompt by its number, also of those without a row.
        tree: of all rows; it and the lengths are on the CPU.
    """
    length, extra = length_P[tree.used_P].tolist(), tree.size_P.tolist()
    batch_P, batch, prompts, widest = [0] * len(length), -1, 0, (0, 0)
    for p in sorted(range(len(length)), key=lambda p: (length[p], extra[p])):
        wider = (length[p], max(widest[1], extra[p]))
        if prompts == 0 or (prompts + 1) * sum(wider) > limit:
            batch, prompts, wider = batch + 1, 0, (length[p], extra[p])
        batch_P[p], prompts, widest = batch, prompts + 1, wider
    batch_N = torch.tensor(batch_P)[tree.group_N]
    return [(batch_N == one).nonzero()[:, 0] for one in range(batch + 1)]
