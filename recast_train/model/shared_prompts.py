"""Prompts computed once: whatever branches off a prompt is further positions of the same row, kept apart by the mask.

Axis letters: P prompts, T tokens of a prompt, W branches of a prompt, E extra positions fed so far or tokens of a response,
R responses of a prompt, D hidden width, X positions of a pass, N rows, L levels.
"""

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, beside
from recast_train.model.shared_prefixes import PrefixTree, prefix_states, prefix_tree


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
        tokens = self._model.table("code_token", level - 1)[self._model.table("node_code", level)[node_PW]]
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

    `prompt_N` says which prompt a row belongs to. A prompt is computed once for all its rows, and so is a prefix of an SID that
    several of them share; a prompt without a row is not computed. Prompts and rows are best on the CPU, wherever the model is:
    what a pass consists of is found there, and the device is never waited for.
    """
    matrix = model.output_matrix()
    hidden_XD, at_NL = prefix_states(model, prompts, sid_prefixes(model, prompt_N, leaf_N))
    return model.leaf_logprobs(hidden_XD, at_NL, leaf_N, temperature, matrix)


def shared_hidden(model: SidModel, prompts: PromptTokens, tokens_PRE: Tensor, real_PRE: Tensor | None = None) -> Tensor:
    """Hidden states (P, R, E, D) that predict each token of R responses of any E tokens to each prompt, with gradient.

    The first is the prompt's own, the last token is not read. Prompts and common prefixes are computed once, as in
    `packed_logprobs`. `real_PRE` where responses are shorter, false after their last token: what stands there is of no meaning.
    """
    P, R, E = tokens_PRE.shape
    prompt_N = torch.arange(P, device=tokens_PRE.device).repeat_interleave(R)
    read_NE = tokens_PRE.flatten(0, 1)[:, : E - 1]
    real_NE = None if real_PRE is None else real_PRE.flatten(0, 1)[:, : E - 1]
    hidden_XD, at_NE = prefix_states(model, prompts, prefix_tree(prompt_N, read_NE, real_NE))
    return hidden_XD[beside(at_NE, hidden_XD)].view(P, R, E, -1)


def repeated_logprobs(
    model: SidModel, prompts: PromptTokens, prompt_N: Tensor, leaf_N: Tensor, temperature: float = 1.0
) -> Tensor:
    """The same by the plain path: every row repeats its prompt under a plain causal mask. The oracle of `packed_logprobs`."""
    part, read_NL = prompts.take(prompt_N), _tokens_read(model, leaf_N)
    tokens, real = (torch.cat(pair, 1) for pair in ((part.tokens_PT, read_NL), (part.real_PT, torch.ones_like(read_NL).bool())))
    whole = PromptTokens(tokens, real)
    hidden_NLD = model.hidden(whole.tokens_PT, whole.positions_PT, whole.mask())[:, -model.levels :]
    at_NL = torch.arange(hidden_NLD[..., 0].numel(), device=leaf_N.device).view(-1, model.levels)
    return model.leaf_logprobs(hidden_NLD.flatten(0, 1), at_NL, leaf_N, temperature)


def sid_prefixes(model: SidModel, prompt_N: Tensor, leaf_N: Tensor) -> PrefixTree:
    """The prefixes that `packed_logprobs` computes behind each prompt."""
    return prefix_tree(prompt_N, _tokens_read(model, leaf_N))


def _tokens_read(model: SidModel, leaf_N: Tensor) -> Tensor:
    """Tokens (N, L - 1) of leaves; that of the last level is predicted, never read."""
    return model.table("leaf_tokens", index=leaf_N)[leaf_N, :-1]
