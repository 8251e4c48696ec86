"""Regimes of groups by their number of hits K among n valid rollouts."""

from dataclasses import dataclass

import torch
from torch import Tensor

REGIMES = ("all_zero", "single_hit", "multi_hit", "all_hit")


@dataclass(frozen=True)
class Regime:
    """Shares of groups, in [0, 1]: all_zero K = 0, single_hit K = 1 < n, multi_hit 1 < K < n, all_hit K = n.

    `learnable` is the naturally learnable share, 0 < K < n.
    """

    all_zero: float
    single_hit: float
    multi_hit: float
    all_hit: float
    learnable: float


def regime_codes(hits_P: Tensor, valid_P: Tensor) -> Tensor:
    """Index into `REGIMES` for each group, int64 (P,), from its hits K and valid rollouts n."""
    code = torch.where(hits_P == 0, 0, torch.where(hits_P == 1, 1, 2))
    return torch.where((hits_P == valid_P) & (hits_P > 0), 3, code)


def regime_shares(hits_P: Tensor, valid_P: Tensor) -> Regime:
    """The `Regime` of a batch from each group's hits K and valid rollouts n, both int (P,)."""
    counts = torch.bincount(regime_codes(hits_P, valid_P), minlength=4).double()
    zero, single, multi, full = (counts / counts.sum()).tolist()
    return Regime(zero, single, multi, full, learnable=single + multi)
