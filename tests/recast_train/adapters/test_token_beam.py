"""The beam behind a thought, as verl's agent loop searches it: against every continuation written out."""

import asyncio
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_train.adapters.verl.token_beam import Likely, widest_beam

pytestmark = pytest.mark.adapters
VOCABULARY, LEVELS, PROMPT = 4, 3, [7, 8]


def logprobs(seed: int, prefix: Sequence[int]) -> np.ndarray:
    """The next token's log-probabilities behind a prefix: another distribution behind each."""
    logits = np.random.default_rng([seed, *prefix]).normal(size=VOCABULARY)
    return logits - np.log(np.exp(logits).sum())


def search(seed: int, width: int, asked: list[list[int]] | None = None) -> list[list[int]]:
    async def next_tokens(prefix: list[int], count: int) -> Likely:
        if asked is not None:
            asked.append(prefix)
        own = logprobs(seed, prefix)
        return [(int(token), float(own[token])) for token in np.argsort(-own)[:count]]

    return asyncio.run(widest_beam(next_tokens, PROMPT, width, LEVELS))


def total(seed: int, tokens: Sequence[int]) -> float:
    return sum(logprobs(seed, [*PROMPT, *tokens[:level]])[token] for level, token in enumerate(tokens))


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, VOCABULARY**LEVELS))
def test_a_beam_keeps_the_best_prefixes_of_each_length(seed: int, width: int) -> None:
    kept: list[tuple[int, ...]] = [()]
    for level in range(1, LEVELS + 1):
        reached = [tokens for tokens in product(range(VOCABULARY), repeat=level) if tokens[:-1] in kept]
        kept = sorted(reached, key=lambda tokens: -total(seed, tokens))[:width]
    found = search(seed, width)
    assert found == [list(tokens) for tokens in kept]
    assert len({tuple(tokens) for tokens in found}) == width


def test_a_level_asks_once_for_each_beam() -> None:
    asked: list[list[int]] = []
    found = search(0, 3, asked)
    assert [len(prefix) - len(PROMPT) for prefix in asked] == [0, 1, 1, 1, 2, 2, 2]
    assert all(prefix[: len(PROMPT)] == PROMPT for prefix in asked)
    assert len(found) == 3
