"""Where a request stands in its answer, and logits that leave it only tokens with which an item's answer goes on.

Axis letters: R rows (requests of a batch), V tokens of the vocabulary, U distinct places, B tokens that may come next.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recast_train.adapters.vllm.answer_trie import AnswerError, AnswerTrie

Place = tuple[int, int]  # tokens of the answer so far, and the trie's node that they lead to


class AnswerWalk:
    """One request. `written` is the list that vLLM appends its tokens to; each token is read once.

    The answer begins with the first token, or behind the first `after`.
    """

    def __init__(self, trie: AnswerTrie, after: int | None, written: Sequence[int]) -> None:
        self.trie, self._after, self._written = trie, after, written
        self._restart()

    def _restart(self) -> None:
        self._read = 0
        self._place: Place | None = (0, 0) if self._after is None else None

    def place(self) -> Place | None:
        """Where the request stands now, None while it thinks. Raises AnswerError for a token that no answer has there."""
        if self._read > len(self._written):  # vLLM takes tokens back whose cache got lost
            self._restart()
        for token in self._written[self._read :]:
            if token < 0:  # vLLM's filler until it knows
                raise AnswerError(f"token {token}: vLLM does not know yet what it sampled; set async_scheduling to false")
            if self._place is not None:
                at, node = self._place
                self._place = at + 1, self.trie.child(at, node, token)
            elif token == self._after:
                self._place = 0, 0
            self._read += 1
        return self._place


def hold_to_answers(logits_RV: Tensor, walks: Mapping[int, AnswerWalk]) -> Tensor:
    """Set the logits of tokens with which no answer goes on to -inf, in place; `walks` by row, the other rows are left alone.

    Requests at one place share its tokens, so that few are looked up and sent to the device.
    """
    places: dict[tuple[int, int, int], int] = {}
    tokens: list[np.ndarray] = []
    rows, which = [], []
    for row, walk in walks.items():
        place = walk.place()
        if place is None:
            continue
        key = id(walk.trie), *place
        if key not in places:
            places[key] = len(places)
            tokens.append(walk.trie.next_tokens(*place))
        rows.append(row)
        which.append(places[key])
    if not rows:
        return logits_RV
    width = max(map(len, tokens))
    table_UB = np.stack([np.resize(own, width) for own in tokens])  # one that repeats is set to the same logit again
    device = logits_RV.device
    rows_R1 = torch.tensor(rows, device=device)[:, None]
    tokens_RB = torch.from_numpy(table_UB).to(device)[torch.tensor(which, device=device)]
    kept_RB = logits_RV[rows_R1, tokens_RB]
    logits_RV[rows_R1[:, 0]] = -torch.inf
    logits_RV[rows_R1, tokens_RB] = kept_RB
    return logits_RV
