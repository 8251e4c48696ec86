"""Scores of each prompt's candidates, and what a temperature makes of them: pi(y)^(1/T), renormalised over the candidates.

Axes: N prompts, X candidates of all prompts one after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar

from recast_sim.matched_temperature import WIDEST, matching_temperature

Floats = NDArray[np.float64]
_WHOLE = 0.99  # of the probability: lists that hold as much on average are the distribution
_STEP = 1e-4  # of log T, for a slope


@dataclass(frozen=True)
class CandidateScores:
    """Log-probabilities or logits of some candidates of each prompt.

    Attributes:
        score_X: all scores, a prompt's after those of the one before.
        size_N: candidates of each prompt, one or more.
        slot_N: place of the target among its prompt's own, from 0.
        set_N: a number for each prompt's set of candidates, equal where the sets are.
    """

    score_X: Floats
    size_N: NDArray[np.int64]
    slot_N: NDArray[np.int64]
    set_N: NDArray[np.uint64]

    @property
    def start_N(self) -> NDArray[np.int64]:
        """Where each prompt's candidates begin."""
        return np.cumsum(self.size_N) - self.size_N

    @property
    def mass(self) -> float:
        """Mean probability of a prompt's candidates together, where the scores are log-probabilities; above 1 where they
        cannot be such."""
        return float(np.exp(np.minimum(self._total(1.0), 300.0)).mean())

    @property
    def whole(self) -> bool:
        """Whether the scores are log-probabilities of all candidates that count."""
        return _WHOLE <= self.mass <= 2 - _WHOLE

    def take(self, index_M: NDArray[np.int64]) -> "CandidateScores":
        """Some prompts, in the order of `index_M`."""
        size_M, first_M = self.size_N[index_M], self.start_N[index_M]
        place_X = np.repeat(first_M - (np.cumsum(size_M) - size_M), size_M) + np.arange(size_M.sum())
        return CandidateScores(self.score_X[place_X], size_M, self.slot_N[index_M], self.set_N[index_M])

    def target_logprob(self, inverse: float = 1.0) -> Floats:
        """Log-probability (N,) of the target at T = 1 / inverse, nats."""
        return inverse * self.score_X[self.start_N + self.slot_N] - self._total(inverse)

    def entropy(self, temperature: float = 1.0) -> Floats:
        """Entropy (N,) of the candidates, nats."""
        total_N = self._total(1 / temperature)
        share_X = np.exp(self.score_X / temperature - np.repeat(total_N, self.size_N))
        return total_N - self._sums(share_X * self.score_X) / temperature

    def best_inverse(self) -> float:
        """The 1 / T, within 1e-3 .. 1e3, at which the targets are likeliest: the mean log-likelihood is concave in it."""
        own = self.score_X[self.start_N + self.slot_N].mean()

        def slope(log_inverse: float) -> float:
            inverse = math.exp(log_inverse)
            share_X = np.exp(inverse * self.score_X - np.repeat(self._total(inverse), self.size_N))
            return float(own - self._sums(share_X * self.score_X).mean())

        ends = (-WIDEST, WIDEST)
        low, high = map(slope, ends)
        if low * high >= 0:  # best at an end, or, where all scores are equal, everywhere
            return 1.0 if low == high == 0 else math.exp(ends[low > 0])
        return math.exp(root_scalar(slope, bracket=ends, xtol=1e-9).root)

    def temperature_of(self, entropy: float) -> float:
        """The T, within 1e-3 .. 1e3, at which the mean entropy is `entropy`."""
        return matching_temperature(entropy, lambda temperature: float(self.entropy(temperature).mean()))

    def pass_at_1_by_entropy(self, temperature: float) -> float:
        """How fast mean sampled Pass@1 rises with mean entropy when T moves; 0 where entropy does not move."""

        def at(log_temperature: float) -> tuple[float, float]:
            T = math.exp(log_temperature)
            return float(np.exp(self.target_logprob(1 / T)).mean()), float(self.entropy(T).mean())

        middle = math.log(temperature)
        (low, cold), (high, warm) = at(middle - _STEP), at(middle + _STEP)
        return (high - low) / (warm - cold) if warm - cold > 1e-12 else 0.0

    def _total(self, inverse: float) -> Floats:
        """log sum exp of `inverse` times the scores, (N,)."""
        scaled_X = inverse * self.score_X
        top_N = np.maximum.reduceat(scaled_X, self.start_N)
        return top_N + np.log(self._sums(np.exp(scaled_X - np.repeat(top_N, self.size_N))))

    def _sums(self, value_X: Floats) -> Floats:
        return np.add.reduceat(value_X, self.start_N)


def calibrated(levels: Sequence[CandidateScores], fold_N: NDArray[np.int64]) -> tuple[Floats, tuple[float, ...]]:
    """Log-probability (N,) of each target with every level at the T that fits the *other* fold's prompts best; and the T of
    each level that fits all prompts best.

    Args:
        levels: of the same prompts; one, where items are scored whole.
        fold_N: 0 or 1 for each prompt.
    """
    total_N, fitted = np.zeros(len(fold_N)), []
    for level in levels:
        for fold in (0, 1):
            own, other = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
            if len(own):
                inverse = (level.take(other) if len(other) else level).best_inverse()
                total_N[own] += level.take(own).target_logprob(inverse)
        fitted.append(1 / level.best_inverse())
    return total_N, tuple(fitted)
