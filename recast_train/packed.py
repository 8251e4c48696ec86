"""Prompts computed once: whatever branches off a prompt is further positions of the same row, kept apart by the mask.

Axis letters: P prompts, T tokens of a prompt, W branches of a prompt, E extra positions fed so far, D hidden width, N rows,
L levels, R rows of a prompt at most.
"""

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel


class PromptCache:
    """Prefilled prompts, and the branches fed to them since; never expanded to one row a branch. For use without gradient."""

    def __init__(self, model: SidModel, prompts: PromptTokens) -> None:
        from transformers import DynamicCache

        self._model, self._prompts = model, prompts
        self._cache = DynamicCache(config=model.lm.config)
        hidden_PTD = model.hidden(prompts.tokens_PT, prompts.positions_PT, prompts.mask(), self._cache)
        self.last_PD = hidden_PTD[:, -1]

    def extend(self, level: int, node_PW: Tensor, sees_PWE: Tensor) -> Tensor:
        """Hidden states (P, W, D) of nodes of `level` (1..L-1) as W extra positions.

        `sees_PWE` is true where a new position may see an extra position fed before; it sees the prompt and itself anyway.
        """
        tokens = self._model.table("node_code", level)[node_PW] + self._model.offset[level - 1]
        return self.feed(tokens, (self._prompts.length_P + level - 1)[:, None].expand_as(node_PW), sees_PWE)

    def feed(self, tokens_PW: Tensor, positions_PW: Tensor, sees_PWE: Tensor) -> Tensor:
        """The same of any tokens at given positions."""
        P, W = tokens_PW.shape
        itself = torch.eye(W, dtype=torch.bool, device=tokens_PW.device).expand(P, W, W)
        prompt = self._prompts.real_PT[:, None].expand(P, W, -1)
        mask = torch.cat([prompt, sees_PWE, itself], 2)[:, None]
        return self._model.hidden(tokens_PW, positions_PW, mask, self._cache)


def packed_logprobs(
    model: SidModel, prompts: PromptTokens, prompt_N: Tensor, leaf_N: Tensor, temperature: float = 1.0
) -> Tensor:
    """Trie-constrained token log-probabilities (N, L) of leaves as continuations of prompts, with gradient.

    `prompt_N` (ascending) says which prompt a row belongs to. One sequence a prompt holds it once and all its rows: row r
    attends to the prompt and to itself. A prompt without a row is not computed.
    """
    levels = model.levels
    used_P, group_N, count_P = prompt_N.unique_consecutive(return_inverse=True, return_counts=True)
    part = prompts.take(used_P)
    slot_N = torch.arange(len(prompt_N), device=prompt_N.device) - (count_P.cumsum(0) - count_P)[group_N]
    nodes_NL, R = model.table("leaf_nodes")[leaf_N], int(count_P.max())
    tokens, positions = [part.tokens_PT], [part.positions_PT]
    for level in range(levels - 1):  # the last level's token is predicted, never read
        own = torch.zeros(len(used_P), R, dtype=torch.int64, device=prompt_N.device)
        own[group_N, slot_N] = model.table("leaf_codes")[leaf_N, level] + model.offset[level]
        tokens.append(own)
        positions.append((part.length_P + level)[:, None].expand(-1, R))
    hidden_PQD = model.hidden(torch.cat(tokens, 1), torch.cat(positions, 1), _packed_mask(part, R, levels - 1))
    T = part.tokens_PT.shape[1]
    steps = []
    for level in range(levels):
        at_N = torch.full_like(slot_N, T - 1) if level == 0 else T + (level - 1) * R + slot_N
        parent_N = nodes_NL[:, level - 1] if level else torch.zeros_like(leaf_N)
        steps.append(model.step_logprobs(hidden_PQD[group_N, at_N], level, parent_N, nodes_NL[:, level], temperature))
    return torch.stack(steps, 1)


def repeated_logprobs(
    model: SidModel, prompts: PromptTokens, prompt_N: Tensor, leaf_N: Tensor, temperature: float = 1.0
) -> Tensor:
    """The same by the plain path: every row repeats its prompt under a plain causal mask. The oracle of `packed_logprobs`."""
    part, levels = prompts.take(prompt_N), model.levels
    codes_NL = model.table("leaf_codes")[leaf_N] + torch.tensor(model.offset, device=leaf_N.device)
    tokens = torch.cat([part.tokens_PT, codes_NL[:, :-1]], 1)
    real = torch.cat([part.real_PT, torch.ones_like(codes_NL[:, :-1], dtype=torch.bool)], 1)
    whole = PromptTokens(tokens, real)
    hidden_NQD = model.hidden(whole.tokens_PT, whole.positions_PT, whole.mask())[:, -levels:]
    nodes_NL = model.table("leaf_nodes")[leaf_N]
    parents_NL = torch.cat([torch.zeros_like(nodes_NL[:, :1]), nodes_NL[:, :-1]], 1)
    steps = [
        model.step_logprobs(hidden_NQD[:, level], level, parents_NL[:, level], nodes_NL[:, level], temperature)
        for level in range(levels)
    ]
    return torch.stack(steps, 1)


def packed_tokens(model: SidModel, prompts: PromptTokens, prompt_N: Tensor) -> int:
    """Real tokens that `packed_logprobs` computes: each used prompt once, and L - 1 tokens of each row."""
    return int(prompts.length_P[prompt_N.unique()].sum()) + len(prompt_N) * (model.levels - 1)


def _packed_mask(prompts: PromptTokens, R: int, depth: int) -> Tensor:
    """Bool (P, 1, Q, Q) over [prompt, R tokens of the first level, R of the second, ...], Q = T + depth * R."""
    P, T = prompts.tokens_PT.shape
    Q = T + depth * R
    mask = torch.zeros(P, Q, Q, dtype=torch.bool, device=prompts.real_PT.device)
    mask[:, :T, :T] = prompts.mask()[:, 0]
    mask[:, T:, :T] = prompts.real_PT[:, None]
    same_row = torch.eye(R, dtype=torch.bool, device=mask.device).repeat(depth, depth)
    mask[:, T:, T:] = same_row.tril()
    return mask[:, None]
