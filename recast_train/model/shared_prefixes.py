"""Responses of many tokens behind few prompts: a prompt is computed once, and so is a prefix that several of its rows share.

Axis letters: N rows, U distinct rows, L tokens of a row, P prompts that have rows, T tokens of a prompt, M distinct prefixes,
E of them behind one prompt at most, D hidden width, X positions of a pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, on, require


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of the rows of each prompt, depth first: a prefix stands before what it begins.

    Attributes:
        used_P: the prompts that have rows, ascending; `group_N` the place in it of each row's prompt.
        size_P: number of distinct prefixes of each prompt; the axis E is padded to the largest.
        at_NL: the prefix (0..E-1) that each row's token ends; after a row's last token still that one; -1 where it has none.
        tokens_PE, depth_PE: last token of each prefix and how many come before it in the row; 0 on padding.
        last_PE: the last prefix that begins with this one.
    """

    used_P: Tensor
    group_N: Tensor
    size_P: Tensor
    at_NL: Tensor
    tokens_PE: Tensor
    depth_PE: Tensor
    last_PE: Tensor

    @property
    def sees_PEE(self) -> Tensor:
        """True where the second prefix begins the first (or is the first): one interval test, since they stand depth first."""
        place_E = torch.arange(self.last_PE.shape[1], device=self.last_PE.device)
        return (place_E <= place_E[:, None]) & (place_E[:, None] <= self.last_PE[:, None])

    def tokens(self, length_P: Tensor) -> int:
        """Real tokens of a pass, `length_P` being those of all prompts: each used one once, and each distinct prefix."""
        return int(length_P[self.used_P].sum() + self.size_P.sum())


def prefix_tree(prompt_N: Tensor, tokens_NL: Tensor, real_NL: Tensor | None = None) -> PrefixTree:
    """The tree of rows of tokens (not negative) behind prompts; `real_NL` where rows are shorter, false after their last token.

    Raises:
        TrainError: a row goes on after a token that is not real.
    """
    if real_NL is None:
        real_NL = torch.ones_like(tokens_NL, dtype=torch.bool)
    whole = bool((real_NL[:, 1:] <= real_NL[:, :-1]).all())
    require(whole, "real_NL", "a row", "has a token after its end; pad rows on the right")
    rows = torch.cat([prompt_N[:, None], tokens_NL.masked_fill(~real_NL, -1)], 1)
    rows_U, distinct_N = rows.unique(dim=0, return_inverse=True)  # sorted: rows that share a prefix are neighbours
    used_P, group_U = rows_U[:, 0].unique_consecutive(return_inverse=True)
    new_UL, at_UL, size_P = _numbered(rows_U, group_U, len(used_P))
    row_M, depth_M = new_UL.nonzero(as_tuple=True)
    E = int(size_P.max())
    tokens_PE, depth_PE = (torch.zeros(len(used_P), E, dtype=torch.int64, device=prompt_N.device) for _ in range(2))
    last_PE = torch.arange(E, device=prompt_N.device).repeat(len(used_P), 1)
    if E:
        place_M = group_U[row_M], at_UL[new_UL]
        tokens_PE[place_M], depth_PE[place_M] = rows_U[row_M, depth_M + 1], depth_M
        flat_UL = group_U[:, None] * E + at_UL.clamp(min=0)
        last_PE.view(-1).scatter_reduce_(0, flat_UL.flatten(), at_UL[:, -1:].expand_as(at_UL).flatten(), "amax")
    return PrefixTree(used_P, group_U[distinct_N], size_P, at_UL[distinct_N], tokens_PE, depth_PE, last_PE)


def _numbered(rows_U: Tensor, group_U: Tensor, prompts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of sorted distinct rows (a prompt, then tokens): where a row brings a new prefix (U, L), the prefix's number behind its
    prompt at each token (U, L), and how many each prompt has (P,)."""
    real_UL = rows_U[:, 1:] >= 0
    new_UL = real_UL.clone()
    new_UL[1:] &= (rows_U[1:] == rows_U[:-1]).cumprod(1)[:, 1:] == 0
    size_P = torch.zeros(prompts, dtype=torch.int64, device=rows_U.device).index_add_(0, group_U, new_UL.sum(1))
    start_U = (size_P.cumsum(0) - size_P)[group_U, None]
    number_UL = (new_UL.flatten().cumsum(0) - 1).view(new_UL.shape).masked_fill(~new_UL, -1)
    # a row that repeats a prefix has the last new number of its depth; past its end, the largest of its own: its last token's
    at_UL = (number_UL.cummax(0).values - start_U).masked_fill(~real_UL, -1).cummax(1).values
    return new_UL, at_UL, size_P


def prefix_states(model: SidModel, prompts: PromptTokens, tree: PrefixTree) -> tuple[Tensor, Tensor]:
    """One pass with gradient over prompts and the rows behind them.

    One sequence a prompt holds it once and then the distinct prefixes, each seeing the prompt, the prefixes that begin it and
    itself. A prompt without a row is not computed. Prompts and tree are on the CPU, or both on the model's device.

    Returns:
        last hidden states (X, D) of all positions, on the model's device; which of them stands after a row's prompt and after
        each of its tokens (N, 1 + L), the same for rows that share a prefix, after a row's end its last one.
    """
    part = prompts.flush_left(tree.used_P)
    (P, T), E = part.tokens_PT.shape, tree.tokens_PE.shape[1]
    tokens = torch.cat([part.tokens_PT, tree.tokens_PE], 1)
    positions = torch.cat([part.positions_PT, part.length_P[:, None] + tree.depth_PE], 1)
    mask = torch.cat([part.real_PT[:, None].expand(P, E, T), tree.sees_PEE], 2)[:, None] if E else None
    mask = None if mask is None else on(mask, model.device)
    hidden_PQD = model.hidden(on(tokens, model.device), on(positions, model.device), mask)
    end_N = part.length_P[tree.group_N, None] - 1
    at = torch.cat([end_N, torch.where(tree.at_NL >= 0, T + tree.at_NL, end_N)], 1)
    return hidden_PQD.flatten(0, 1), tree.group_N[:, None] * (T + E) + at
