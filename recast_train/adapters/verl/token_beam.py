"""Beam search over whatever says which tokens may come next and how likely they are: here, verl's servers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

Likely = Sequence[tuple[int, float]]  # token ids with their log-probabilities, the most likely first
NextTokens = Callable[[list[int], int], Awaitable[Likely]]


async def widest_beam(next_tokens: NextTokens, prompt: Sequence[int], width: int, levels: int) -> list[list[int]]:
    """The `width` continuations of `levels` tokens that a beam of this width finds, the most likely first; all differ.

    A level asks `next_tokens(prefix, width)` for each of its beams at once. There are fewer than `width` continuations only
    where the tokens given were too few.
    """
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(levels):
        likely = await asyncio.gather(*(next_tokens([*prompt, *tokens], width) for tokens, _ in beams))
        grown = [
            ([*tokens, token], total + logprob)
            for (tokens, total), own in zip(beams, likely, strict=True)
            for token, logprob in own
        ]
        beams = sorted(grown, key=lambda beam: -beam[1])[:width]
    return [tokens for tokens, _ in beams]
