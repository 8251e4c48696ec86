"""Figures of an expected vector from means of independent batches, without their noise. Axes: B batches, D entries."""

from torch import Tensor


def squares(vectors_BD: Tensor) -> Tensor:
    """Entry by entry the square of the mean vector: mean over pairs of different batches, (D,); B = 1 is exact."""
    count = len(vectors_BD)
    if count == 1:
        return vectors_BD[0].square()
    return (vectors_BD.sum(0).square() - vectors_BD.square().sum(0)) / (count * (count - 1))


def cosine(inner: float, square: float, other: float) -> float | None:
    """From an inner product and two squared norms; None where one of them is not above 0."""
    if square <= 0 or other <= 0:
        return None
    return min(1.0, max(-1.0, inner / (square * other) ** 0.5))


def ratio(part: float, whole: float) -> float | None:
    """None where the whole is 0."""
    return part / whole if whole else None
