"""Log-probabilities of a thought's tokens and of the SID behind it, in one pass with gradient.

Axis letters: N rows, S tokens of a thought at most, L levels, X positions of a pass, M trained tokens of thoughts, D hidden
width, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_train.model import PromptTokens, SidModel, beside
from recast_train.model.shared_prefixes import prefix_states
from recast_train.model.shared_prompts import sid_prefixes
from recast_train.rollout import free_logprobs


@dataclass(frozen=True)
class ThoughtRows:
    """The thought of each row, on the CPU wherever the model is.

    Attributes:
        tokens_NS: its tokens, whatever after its end.
        length_N: how many it has.
        trains_NX: bool (N, S + L); the tokens of the thought, then of the SID, that the row trains.
        begin: tokens between a thought and the SID.
        temperature: that thoughts were sampled at.
    """

    tokens_NS: Tensor
    length_N: Tensor
    trains_NX: Tensor
    begin: int
    temperature: float

    def take(self, rows: Tensor) -> "ThoughtRows":
        """Some of the rows."""
        own = (self.tokens_NS[rows], self.length_N[rows], self.trains_NX[rows])
        return ThoughtRows(*own, self.begin, self.temperature)


def thought_logprobs(
    model: SidModel, prompts: PromptTokens, prompt_N: Tensor, leaf_N: Tensor, temperature: float, rows: ThoughtRows
) -> Tensor:
    """Log-probability (N, S + L) of each token that a row trains, 0 elsewhere: free tokens of the thought, then the SID's codes
    over the trie.

    Args:
        prompts: each with a thought behind it, as `sample_thoughts` returns them.
        prompt_N, leaf_N, temperature: as in `packed_logprobs`; a row's thought is that of its prompt.
    """
    matrix = model.output_matrix()
    hidden_XD, at_NL = prefix_states(model, prompts, sid_prefixes(model, prompt_N, leaf_N))
    sid_NL = model.leaf_logprobs(hidden_XD, at_NL, leaf_N, temperature, matrix)
    S = rows.tokens_NS.shape[1]
    row_M, place_M = rows.trains_NX[:, :S].nonzero(as_tuple=True)
    # at_NL[:, 0] is the prompt's last token; the one before a thought's first token predicts it
    at_M = at_NL[row_M, 0] - rows.begin - rows.length_N[row_M] + place_M
    at_U, state_M = at_M.unique(return_inverse=True)  # rows of one thought share its states
    logprobs_UV = free_logprobs(model, hidden_XD[beside(at_U, hidden_XD)], rows.temperature)
    tokens_M = rows.tokens_NS[row_M, place_M]
    found_M = logprobs_UV[beside(state_M, hidden_XD), beside(tokens_M, hidden_XD)]
    flat = hidden_XD.new_zeros(rows.tokens_NS.numel(), dtype=found_M.dtype)
    thought_NS = flat.index_put((beside(row_M * S + place_M, hidden_XD),), found_M).view(-1, S)
    trained_NL = torch.where(beside(rows.trains_NX[:, S:], sid_NL), sid_NL, 0.0)
    return torch.cat([thought_NS, trained_NL], 1)
