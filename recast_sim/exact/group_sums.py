"""A constructor run on groups that are given by the classes of their rows: the sums of coefficients that counting needs.

Axes: N groups, G rollouts, C classes (0 is the hits), W columns of coefficients (1, or the L levels), L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_sim.errors import RecastError
from recast_sim.signal import SignalConfig, construct, default_level_scores, regime_codes
from recast_sim.world.generators import torch_generator

AT = -1.0  # log-probability of each of the anchor's codes where it must not matter


class ExactError(RecastError):
    """A constructor, config or size that counting cannot treat; the message says why. Use Monte Carlo."""


@dataclass(frozen=True)
class GroupSums:
    """Coefficients of N groups (rows, sums and sums of squares by class, the anchor) and what became of the groups."""

    sampled_NGW: Tensor
    a1_NCW: Tensor
    a2_NCWW: Tensor
    anchor_NW: Tensor
    learnable_N: Tensor
    width_N: Tensor
    regime_N: Tensor
    after_N: Tensor

    def coefficients(self) -> Tensor:
        return torch.cat([self.a1_NCW.flatten(1), self.a2_NCWW.flatten(1), self.anchor_NW], dim=1)


def sums_of(
    constructor: str,
    config: SignalConfig,
    class_NG: Tensor,
    scores_C: Tensor,
    levels: int,
    anchor_logprob_NL: Tensor | None = None,
    draws: tuple[int, int, int] = (0, 0, 0),
) -> GroupSums:
    """Run the constructor on groups given as classes of their rows.

    `draws` seed the rows' log-probabilities, the ties, and the codes of a row beyond those that it shares with the target.
    """
    N, G = class_NG.shape
    logprob_NL = torch.full((N, levels), AT) if anchor_logprob_NL is None else anchor_logprob_NL
    signal = construct(
        constructor,
        (class_NG == 0).double(),
        scores_C[class_NG],
        has_anchor_P=torch.ones(N, dtype=torch.bool),
        logprob_PG=-5 * torch.rand(class_NG.shape, generator=torch_generator(draws[0], "log-probabilities")),
        anchor_logprob_P=logprob_NL.sum(1),
        anchor_logprob_PL=logprob_NL,
        sids_PGL=_codes(class_NG, scores_C, levels, draws[2]),
        targets_PTL=torch.zeros(N, 1, levels, dtype=torch.int64),
        config=config,
        generator=torch_generator(draws[1], "ties"),
    )
    plan, rows = signal.plan, signal.group_size  # one row more than G where the anchor is appended
    coefficient_MW, groups = plan.weights_N[:, None] * plan.advantages_NL, plan.rows_N // rows
    W = coefficient_MW.shape[1]
    flat = torch.zeros(N * rows, W).double().index_add(0, plan.rows_N, coefficient_MW.masked_fill(plan.anchor_N[:, None], 0.0))
    sampled_NGW = flat.view(N, rows, W)[:, :G]
    member_NGC = torch.nn.functional.one_hot(class_NG, len(scores_C)).double()
    return GroupSums(
        sampled_NGW=sampled_NGW,
        a1_NCW=torch.einsum("ngc,ngw->ncw", member_NGC, sampled_NGW),
        a2_NCWW=torch.einsum("ngc,ngv,ngw->ncvw", member_NGC, sampled_NGW, sampled_NGW),
        anchor_NW=sampled_NGW.new_zeros(N, W).index_add(0, groups[plan.anchor_N], coefficient_MW[plan.anchor_N]),
        learnable_N=signal.learnable_P.double(),
        width_N=torch.bincount(groups, minlength=N).double(),
        regime_N=regime_codes(signal.hits_before_P, torch.tensor(G)),
        after_N=regime_codes(signal.hits_after_P, G + signal.repaired_P * (rows - G)),
    )


def _codes(class_NG: Tensor, scores_C: Tensor, levels: int, draw: int) -> Tensor:
    """Codes of rows of given classes for a target of zeros, int64 (N, G, L): zeros as far as the score says, then others."""
    steps = torch.tensor(default_level_scores(levels)).double()
    depth_C = torch.searchsorted(steps, scores_C * (1 + 1e-9), right=True) - 1
    shared_NGL = torch.arange(levels) < depth_C[class_NG][..., None]
    others = torch.randint(1, 4, (*class_NG.shape, levels), generator=torch_generator(draw, "codes"))
    return others.masked_fill(shared_NGL, 0)
