"""What a sampler gives back, and the weights that make a draw without replacement an estimate of an expectation.

Axis letters: P prompts, G rollouts, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollouts:
    """A group of leaves for each prompt. Rows that are not valid are copies of row 0, as in OpenOneRec.

    Attributes:
        leaf_PG: sampled leaves; beams are sorted, best first (a stochastic beam by `phi_PG`: the order of the draws).
        sids_PGL: their SIDs.
        logprobs_PGL: log-probability of each level under the behaviour softmax (that of the temperature), in nats.
        valid_PG: false where a beam has run out of leaves.
        phi_PG: stochastic beam only: Gumbel-perturbed log-probability of each leaf, float64.
        kappa_P: stochastic beam only: the largest perturbed log-probability that was left out, float64; -inf where none was.
    """

    leaf_PG: Tensor
    sids_PGL: Tensor
    logprobs_PGL: Tensor
    valid_PG: Tensor
    phi_PG: Tensor | None = None
    kappa_P: Tensor | None = None

    @property
    def logprob_PG(self) -> Tensor:
        return self.logprobs_PGL.sum(2)


@dataclass(frozen=True)
class Part:
    """Which of a batch's prompts are being sampled: its draws do not depend on how the batch is spread over processes."""

    start: int
    total: int

    def uniform(
        self, shape: tuple[int, ...], axis: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """This part's uniform numbers, on the CPU: those of the whole batch are drawn, prompts along `axis`."""
        whole = torch.rand((*shape[:axis], self.total, *shape[axis + 1 :]), generator=generator, dtype=dtype)
        return whole.narrow(axis, self.start, shape[axis])


def importance_weights(logprob_PG: Tensor, kappa_P: Tensor, valid_PG: Tensor) -> Tensor:
    """Weights w = pi / q, float64 (P, G), of a stochastic beam: the sum over a group of w f is an unbiased estimate of E_pi[f].

    q = 1 - exp(-exp(log pi - kappa)) is the probability of inclusion given kappa (Kool, van Hoof and Welling 2019, arXiv
    1903.06059, section 4.1). pi is the behaviour policy, temperature included. 0 where not valid; pi where kappa is -inf.
    """
    logprob_PG = logprob_PG.double()
    inclusion_PG = -torch.expm1(-(logprob_PG - kappa_P[:, None]).exp())
    return torch.where(valid_PG, logprob_PG.exp() / inclusion_PG, 0.0)
