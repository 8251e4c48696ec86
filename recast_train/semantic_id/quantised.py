"""What a quantiser leaves: each item's codes, the codebooks, and what they rebuild.

Axis letters: I items, L levels, D dimensions of the quantised space, E dimensions of the embeddings, C codes of a level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recast_train.semantic_id.sid_error import SemanticIdError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LARGEST = 1e100  # of a value; its square and the squares' sum are still finite
ROUNDING = 1e-9  # of the largest value; vectors that differ by less are the same


@dataclass(frozen=True)
class Quantised:
    """Items quantised level by level; items may share all codes.

    Attributes:
        vectors_ID: what was quantised: the embeddings, or an encoder's latents.
        codebooks: the vectors (C, D) of each level.
        codes_IL: each item's codes; vectors_ID is near the sum of their vectors.
        decode: from the quantised space to that of the embeddings, (I, D) to (I, E).
    """

    vectors_ID: Floats
    codebooks: tuple[Floats, ...]
    codes_IL: Ints
    decode: Callable[[Floats], Floats]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(book) for book in self.codebooks)

    def residuals(self) -> list[Floats]:
        """What is left of the vectors before each level and after the last: L + 1 arrays (I, D)."""
        left = [self.vectors_ID]
        for level, book in enumerate(self.codebooks):
            left.append(left[-1] - book[self.codes_IL[:, level]])
        return left


def relative_error(embeddings_IE: Floats, rebuilt_IE: Floats) -> float | None:
    """Squared error over the squares around the mean: 0 is exact, 1 as bad as the mean; None where all items are equal."""
    spread = ((embeddings_IE - embeddings_IE.mean(axis=0)) ** 2).sum()
    if spread <= ROUNDING**2 * (embeddings_IE**2).sum():
        return None
    return float(((embeddings_IE - rebuilt_IE) ** 2).sum() / spread)


def checked(embeddings_IE: NDArray[np.floating], sizes: Sequence[int]) -> Floats:
    """The embeddings as float64. Raises SemanticIdError where they, or the sizes, cannot be quantised."""
    embeddings = np.asarray(embeddings_IE)
    if not np.issubdtype(embeddings.dtype, np.floating) and not np.issubdtype(embeddings.dtype, np.integer):
        raise SemanticIdError(f"embeddings: dtype {embeddings.dtype} is not real; give floats")
    embeddings = embeddings.astype(np.float64)
    if embeddings.ndim != 2 or not embeddings.size:
        raise SemanticIdError(f"embeddings: shape {embeddings.shape}; give (items, dimensions), one or more of each")
    bad = np.argwhere(~(np.abs(embeddings) <= LARGEST))
    if len(bad):
        value = embeddings[tuple(bad[0])]
        mend = f"make them finite, within {LARGEST:g}"
        raise SemanticIdError(f"embeddings: {value} at item {bad[0][0]}, dimension {bad[0][1]}; {mend}")
    if not sizes or min(sizes) < 1:
        raise SemanticIdError(f"sizes: {tuple(sizes)}; give one or more levels of one or more codes")
    return embeddings


def different_vectors(vectors_ID: NDArray[np.floating]) -> int:
    """How many rows differ by more than rounding."""
    scale = max(float(np.abs(vectors_ID).max()), 1e-300)
    return len(np.unique(np.round(vectors_ID / scale, 9), axis=0))


def refuse_too_many(size: int, vectors_ID: Floats, level: int) -> None:
    """Raise SemanticIdError where a level (from 1) has more codes than there are different vectors."""
    different = different_vectors(vectors_ID)
    if different < size:
        raise SemanticIdError(f"sizes: level {level} has {size} codes for {different} different vectors; lower it")
