"""Estimates from samples without replacement: the unordered-set estimator.

Axes: P prompts, G distinct leaves of a sample, Q points of the quadrature.
"""

import math

import torch
from torch import Tensor

_LOWEST = -40.0  # log t below which the integrand, at most t, adds nothing in float64
_CHUNK = 4_000_000  # numbers in the largest table


@torch.no_grad()
def unordered_set_weights(logprob_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """Weights w of a sample S without replacement such that sum_{s in S} w_s f(s) is an unbiased estimate of E_pi[f].

    w_s = p(s) P^{D - s}(S - s) / P^D(S), with P^D(S) the probability of drawing the set S in any order; the conditional mean of
    the importance-weighted estimate given S, so of lower variance (Kool, van Hoof and Welling 2020, arXiv 2002.06043, eq. 9 and
    appendix B). Not for a deterministic beam, whose set is no sample.

    Args:
        logprob_PG: log pi of distinct leaves, as `stochastic_beam` gives them.
        valid_PG: false for places that hold no leaf.

    Returns:
        (P, G) in the dtype of `logprob_PG`; 0 where not valid. Where S is the whole support, w = p; where S is one leaf, w = 1.
    """
    step = max(1, _CHUNK // (logprob_PG.shape[1] * len(_points(logprob_PG.shape[1]))))
    chunks = zip(logprob_PG.double().split(step), valid_PG.split(step), strict=True)
    return torch.cat([_weights(logprob, valid) for logprob, valid in chunks]).to(logprob_PG.dtype)


def _weights(logprob_PG: Tensor, valid_PG: Tensor) -> Tensor:
    """With u = exp(-t), P(S) = integral of exp(-t) prod_i (1 - exp(-t r_i)) dt over t > 0, r_i = p_i / (1 - p_S); s left out
    of set and domain leaves the other r_i as they are. The integral is taken over z = log t, where the trapezoid rule converges
    exponentially, and in logarithms, since the probability of a set may be as small as prod p_i."""
    logprob_PG = logprob_PG.masked_fill(~valid_PG, -torch.inf)
    rest_P1 = (1 - logprob_PG.exp().sum(1, keepdim=True)).clamp(min=0)
    log_r_PG = (logprob_PG - rest_P1.log()).masked_fill(~valid_PG, torch.inf)  # an infinite r: a factor 1
    z_Q = _points(logprob_PG.shape[1])
    factor_PGQ = _log1mexp((log_r_PG[..., None] + z_Q).exp())
    total_P1Q = (z_Q - z_Q.exp() + factor_PGQ.sum(1))[:, None]
    log_ratio_PG = (total_P1Q - factor_PGQ).logsumexp(2) - total_P1Q.logsumexp(2)
    return (logprob_PG + log_ratio_PG).exp()


def _points(width: int) -> Tensor:
    """z = log t up to where t^width exp(-t) is nothing beside its maximum, (Q,).

    The trapezoid rule's error is the integrand's Fourier transform at w = 2 pi / step, at worst that of t^width exp(-t), that
    is |Gamma(1 + width + i w)|: below 1e-15 of Gamma(1 + width) for w = 25 + sqrt(80 width).
    """
    step = 2 * math.pi / (25 + math.sqrt(80 * width))
    return torch.arange(_LOWEST, math.log(4 * width + 60), step, dtype=torch.float64)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0, exact at both ends."""
    return torch.where(x < math.log(2), (-torch.expm1(-x)).log(), torch.log1p(-(-x).exp()))
