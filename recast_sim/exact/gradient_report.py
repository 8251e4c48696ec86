"""What a gradient estimate is made of: bias, variance and signal-to-noise, by regime and by level, from its moments.

Axes: B independent batches of groups, R regimes, D parameters, S parts of the parameters.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recast_sim.exact.batch_means import cosine, ratio, squares
from recast_sim.exact.cooling import Compass, Parts
from recast_sim.exact.gram import part_names, part_of_parameter
from recast_sim.signal import REGIMES, Regime, get_constructor
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import Sampler

EstimateMethod = Literal["exact", "monte_carlo"]
REWARDED = "train pass_at_1"  # the gradient g, which the estimates of group-based RL are held against


@dataclass(frozen=True)
class RegimePart:
    """What the groups of one regime, as sampled, contribute to an estimate E of the gradient g.

    Attributes:
        groups: their share of all groups.
        projection: <E over these groups, g> / |<E, g>|: positive along g, negative against it; over the regimes they add up
            to 1, or to -1 where E points against g.
        cosine: between their part of E and g.
        square: their share of E||estimate||^2.
    """

    groups: float
    projection: float | None
    cosine: float | None
    square: float | None


@dataclass(frozen=True)
class LevelPart:
    """One part of the parameters: the head of a level of the SID, or the encoder.

    Attributes:
        square: its share of ||E||^2; exact: its share of ||g||^2.
        projection: its signed share of |<E, g>|.
        cosine: between E and g within it.
    """

    square: float | None
    exact: float
    projection: float | None
    cosine: float | None


@dataclass(frozen=True)
class GradientReport:
    """A constructor's estimate at a given policy against the exact gradient g of sampled Pass@1.

    The population is the first `prompts` train prompts: g and E = E[estimate] are means over them. Figures that need E are None
    where E is 0, or the sample does not tell it from 0.

    Attributes:
        learnable: share of groups with a non-zero advantage.
        update_width: kept rows a group.
        variance: E||estimate||^2 - ||E||^2 of the estimate of one group of a random prompt, relative to ||E||^2: it does not
            change when the estimate is rescaled. `within` is the share of it that would stay if every prompt were in the batch.
        cosine, sine: of the angle between E and g; cosine 1 means unbiased up to a scalar.
        scale: the factor a that brings a E nearest to g.
        residual: ||a E - g|| / ||g|| at the best a of 0 or more: the sine, or 1 where E points away from g.
        regime_before, regime_after: of the groups, before and after the constructor placed anchors.
        by_regime, by_level: shares of regimes as sampled and of parts of the parameters.
        parts: what of E only cools the policy, and where the rest points, against every gradient of
            `recast_sim.exact.objectives`.
        method: "exact", or "monte_carlo" with the jackknife standard errors `cosine_se` and `variance_se` (0 where exact).
        rollouts_per_group: generated for one group; 0 for a constructor that uses none. A group that a constructor wants
            redrawn counts as an estimate of 0.
    """

    constructor: str
    learnable: float
    update_width: float
    variance: float | None
    cosine: float | None
    regime_before: Regime
    regime_after: Regime
    sine: float | None
    scale: float | None
    residual: float | None
    within: float | None
    by_regime: dict[str, RegimePart]
    by_level: dict[str, LevelPart]
    parts: Parts | None
    method: EstimateMethod
    cosine_se: float | None
    variance_se: float | None
    prompts: int
    group_size: int
    rollouts_per_group: int
    sampler: Sampler

    @property
    def snr(self) -> float | None:
        """Signal-to-noise ratio of one group, 1 / variance; that of a mean over n groups is n times as large."""
        return 1 / self.variance if self.variance else None

    @property
    def snr_per_rollout(self) -> float | None:
        """Signal-to-noise ratio that one generated rollout buys; None where no rollout is needed."""
        return self.snr / self.rollouts_per_group if self.snr is not None and self.rollouts_per_group else None

    @property
    def variance_per_rollout(self) -> float | None:
        """Relative variance of the mean over the groups that a budget of n rollouts pays for, times n."""
        return self.variance * self.rollouts_per_group if self.variance is not None and self.rollouts_per_group else None


@dataclass(frozen=True)
class Moments:
    """Moments of an estimate from B independent batches (1 where exact), split by regime.

    Attributes:
        vectors_BRD: mean estimate; square_BR: mean of its squared norm.
        prompt_square: mean over prompts of ||E[estimate | prompt]||^2.
    """

    vectors_BRD: Tensor
    square_BR: Tensor
    prompt_square: float
    learnable: float
    update_width: float
    before: Regime
    after: Regime


def make_report(
    constructor: str,
    moments: Moments,
    compass: Compass,
    method: EstimateMethod,
    prompts: int,
    group_size: int,
    sampler: Sampler,
) -> GradientReport:
    """The report of moments against the compass, with standard errors where `method` is "monte_carlo"."""
    g_D, policy = compass.gradients[REWARDED], compass.policy
    total_BD, second = moments.vectors_BRD.sum(1), float(moments.square_BR.sum(1).mean())
    square, along = float(squares(total_BD).sum()), float(total_BD.mean(0) @ g_D)
    variance, along_g = _headline(total_BD, moments.square_BR.sum(1), g_D)
    known = variance is not None and along_g is not None
    sine = max(0.0, 1 - along_g**2) ** 0.5 if along_g is not None else None
    variance_se, cosine_se = (0.0, 0.0) if method == "exact" else _jackknife(total_BD, moments.square_BR.sum(1), g_D)
    return GradientReport(
        constructor=constructor,
        learnable=moments.learnable,
        update_width=moments.update_width,
        variance=variance,
        cosine=along_g,
        regime_before=moments.before,
        regime_after=moments.after,
        sine=sine,
        scale=along / square if known else None,
        residual=sine if along > 0 else 1.0 if known else None,
        within=ratio(second - moments.prompt_square, second - square) if known else None,
        by_regime=_by_regime(moments, g_D, abs(along) if known else 0.0, second),
        by_level=_by_level(policy, total_BD, g_D, abs(along) if known else 0.0, square if known else 0.0),
        parts=compass.parts(moments.vectors_BRD) if known else None,
        method=method,
        cosine_se=cosine_se if known else None,
        variance_se=variance_se if known else None,
        prompts=prompts,
        group_size=group_size,
        rollouts_per_group=group_size if get_constructor(constructor).rollouts else 0,
        sampler=sampler,
    )


def _headline(total_BD: Tensor, second_B: Tensor, g_D: Tensor) -> tuple[float | None, float | None]:
    """Relative variance and cosine; None where E is 0 or not told from it."""
    square, second = float(squares(total_BD).sum()), float(second_B.mean())
    if square <= 1e-20 * second or second == 0:
        return None, None
    return max(0.0, second / square - 1), cosine(float(total_BD.mean(0) @ g_D), square, float(g_D.square().sum()))


def _jackknife(total_BD: Tensor, second_B: Tensor, g_D: Tensor) -> tuple[float | None, float | None]:
    """Standard errors of `_headline` from leaving out one batch at a time; None where one of them is unknown."""
    count = len(total_BD)
    others = [torch.arange(count) != b for b in range(count)]
    figures = [_headline(total_BD[keep], second_B[keep], g_D) for keep in others]
    errors = []
    for column in zip(*figures, strict=True):
        known = torch.tensor([value for value in column if value is not None]).double()
        whole = len(known) == count
        errors.append(float(((known - known.mean()).square().sum() * (count - 1) / count).sqrt()) if whole else None)
    return errors[0], errors[1]


def _by_regime(moments: Moments, g_D: Tensor, along: float, second: float) -> dict[str, RegimePart]:
    parts = {}
    for r, name in enumerate(REGIMES):
        vectors_BD = moments.vectors_BRD[:, r]
        own = float(vectors_BD.mean(0) @ g_D)
        parts[name] = RegimePart(
            groups=getattr(moments.before, name),
            projection=ratio(own, along),
            cosine=cosine(own, float(squares(vectors_BD).sum()), float(g_D.square().sum())),
            square=ratio(float(moments.square_BR[:, r].mean()), second),
        )
    return parts


def _by_level(policy: TreePolicy, total_BD: Tensor, g_D: Tensor, along: float, square: float) -> dict[str, LevelPart]:
    names, part_D = part_names(policy), part_of_parameter(policy)
    columns = torch.stack([squares(total_BD), g_D.square(), total_BD.mean(0) * g_D])
    sums_3S = torch.zeros(3, len(names)).double().index_add(1, part_D, columns)
    whole = float(g_D.square().sum())
    return {
        name: LevelPart(ratio(own, square), exact / whole, ratio(inner, along), cosine(inner, own, exact))
        for name, (own, exact, inner) in zip(names, sums_3S.T.tolist(), strict=True)
    }
