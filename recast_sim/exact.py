"""The exact instrument: the gradient of sampled Pass@1 by enumeration, and what a constructor's estimate makes of it.

At the on-policy point a group's estimate is a sum over its kept rows of coefficient times score vector, s_y = grad log pi(y).
On i.i.d. groups its moments are counted exactly (`recast_sim.expectation`), else they are sampled, with standard errors.
Axes: B independent batches of groups, R regimes, P prompts, D parameters, S parts of the parameters.
"""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from recast_sim.batches import Batch, kept_leaves, roll_out, signal_of
from recast_sim.environment import Environment
from recast_sim.expectation import ExactError, LeafClasses, count_moments, leaf_classes, traits_of
from recast_sim.gram import (
    expected_estimate,
    expected_estimates,
    part_names,
    part_of_parameter,
    pass_at_1_gradient,
    square_norms,
)
from recast_sim.policy import TreePolicy
from recast_sim.sampling import Sampler
from recast_sim.seeding import torch_generator
from recast_sim.signal import REGIMES, Regime, Signal, SignalConfig, get_constructor, regime_codes

__all__ = [
    "ExactError",
    "GradientReport",
    "exact_report",
    "expected_estimate",
    "gradient_reports",
    "monte_carlo_report",
    "pass_at_1_gradient",
    "square_norms",
]

Method = Literal["exact", "monte_carlo"]
BATCHES = 8  # independent batches behind a Monte-Carlo report's standard errors


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
    method: Method
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


def gradient_reports(
    policy: TreePolicy,
    environment: Environment,
    constructors: tuple[str, ...],
    group_size: int,
    prompts: int,
    groups_per_prompt: int,
    seed: int,
    config: SignalConfig | None = None,
    sampler: Sampler = "iid",
) -> list[GradientReport]:
    """Reports of several constructors on the first `prompts` train prompts: exact where that can be, else Monte Carlo.

    Args:
        groups_per_prompt: for Monte Carlo, a multiple of 8; all constructors get the same groups.
        seed: of the sampled groups.

    Raises:
        ValueError: Monte Carlo is needed and `groups_per_prompt` is no multiple of 8.
    """
    bench = _Bench(policy, environment, group_size, prompts, groups_per_prompt, seed, config or SignalConfig(), sampler)
    return [bench.report(name) for name in constructors]


def exact_report(
    policy: TreePolicy,
    environment: Environment,
    constructor: str,
    group_size: int,
    prompts: int,
    config: SignalConfig | None = None,
) -> GradientReport:
    """Exact report on i.i.d. groups.

    Raises:
        ExactError: class counts do not determine the constructor's estimate, or there are too many of them.
    """
    bench = _Bench(policy, environment, group_size, prompts, 0, 0, config or SignalConfig(), "iid")
    return bench.exact(constructor)


def monte_carlo_report(
    policy: TreePolicy,
    environment: Environment,
    constructor: str,
    group_size: int,
    prompts: int,
    groups_per_prompt: int,
    seed: int,
    config: SignalConfig | None = None,
    sampler: Sampler = "iid",
) -> GradientReport:
    """Sampled report with standard errors from 8 independent batches of each prompt's groups.

    ||E||^2 is the mean inner product of different batches, so it is not inflated by noise. A beam is deterministic: one group
    of each prompt is exact. What a constructor computes over the batch, it computes over one of the 8 batches.

    Raises:
        ValueError: `groups_per_prompt` is no multiple of 8.
    """
    bench = _Bench(policy, environment, group_size, prompts, groups_per_prompt, seed, config or SignalConfig(), sampler)
    return bench.monte_carlo(constructor)


@dataclass(frozen=True)
class _Moments:
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


@dataclass(frozen=True)
class _Bench:
    """A policy and a population of prompts, with what all constructors share computed once."""

    policy: TreePolicy
    environment: Environment
    group_size: int
    prompts: int
    groups_per_prompt: int
    seed: int
    config: SignalConfig
    sampler: Sampler

    def report(self, constructor: str) -> GradientReport:
        if self.sampler == "iid":
            with contextlib.suppress(ExactError):
                return self.exact(constructor)
        return self.monte_carlo(constructor)

    def exact(self, constructor: str) -> GradientReport:
        return _report(self, constructor, self.counted(constructor), "exact")

    def monte_carlo(self, constructor: str) -> GradientReport:
        return _report(self, constructor, self.sampled(constructor), "exact" if self.deterministic else "monte_carlo")

    @property
    def deterministic(self) -> bool:
        return self.sampler == "beam" and "random" not in (self.config.tie_rule, self.config.anchor_choice)

    @cached_property
    def double(self) -> TreePolicy:
        return copy.deepcopy(self.policy).double()

    @cached_property
    def x_PD(self) -> Tensor:
        return self.environment.train.x_ND[: self.prompts].double()

    @cached_property
    def exact_D(self) -> Tensor:
        return pass_at_1_gradient(self.double, self.x_PD, self.environment.train.target_NT[: self.prompts])

    @cached_property
    def by_score(self) -> LeafClasses:
        return leaf_classes(self.double, self.environment, self.prompts, self.config, structural=True)

    @cached_property
    def by_hit(self) -> LeafClasses:
        return leaf_classes(self.double, self.environment, self.prompts, self.config, structural=False)

    def counted(self, constructor: str) -> _Moments:
        traits = traits_of(constructor, self.config, self.group_size, self.by_score.scores_C)
        classes, prompts = self.by_score if traits.structural else self.by_hit, len(self.x_PD)
        counted = count_moments(classes, constructor, self.config, self.group_size, traits.last_slot)
        return _Moments(
            vectors_BRD=expected_estimates(self.double, self.x_PD, counted.coefficient_RPY / prompts)[None],
            square_BR=counted.square_RP.mean(1)[None],
            prompt_square=float(counted.mean_square_P.mean()),
            learnable=float(counted.learnable_P.mean()),
            update_width=float(counted.width_P.mean()),
            before=_regime(counted.before_RP.mean(1)),
            after=_regime(counted.after_RP.mean(1)),
        )

    @cached_property
    def batches(self) -> list[Batch]:
        """The sampled groups, all prompts in each batch, a prompt's groups one after the other."""
        count = 1 if self.deterministic else BATCHES
        groups = 1 if self.deterministic else self.groups_per_prompt // count
        if not self.deterministic and (groups < 1 or self.groups_per_prompt % count):
            raise ValueError(
                f"groups_per_prompt: {self.groups_per_prompt} must be a multiple of {count}, the number of batches"
            )
        prompt_P = torch.arange(len(self.x_PD)).repeat_interleave(groups)
        rest = (self.group_size, self.sampler, self.config)
        seeds = [torch_generator(self.seed, "gradient groups", batch) for batch in range(count)]
        return [roll_out(self.policy, self.environment, prompt_P, *rest, seed) for seed in seeds]

    def sampled(self, constructor: str) -> _Moments:
        seeds = [torch_generator(self.seed, "gradient signal", batch) for batch in range(len(self.batches))]
        signals = [signal_of(batch, constructor, self.config, seed) for batch, seed in zip(self.batches, seeds, strict=True)]
        rows = [_Rows.of(batch, signal) for batch, signal in zip(self.batches, signals, strict=True)]
        moments = [self._split(part) for part in rows]
        return _Moments(
            vectors_BRD=torch.stack([vectors for vectors, _ in moments]),
            square_BR=torch.stack([square for _, square in moments]),
            prompt_square=self._prompt_square(rows),
            learnable=_mean([float(signal.learnable_P.double().mean()) for signal in signals]),
            update_width=_mean([len(s.plan.rows_N) / len(s.learnable_P) for s in signals]),
            before=_mean_regime([signal.regime_before for signal in signals]),
            after=_mean_regime([signal.regime_after for signal in signals]),
        )

    def _split(self, rows: "_Rows") -> tuple[Tensor, Tensor]:
        """A batch's mean estimate (R, D) and mean squared norm (R,) by regime of the group as sampled."""
        P, Y, groups = len(self.x_PD), self.double.leaves, len(rows.prompt_N)
        flat = ((rows.regime_N * P + rows.prompt_N)[:, None] * Y + rows.leaf_NW).flatten()
        table = torch.zeros(len(REGIMES) * P * Y).double().index_add(0, flat, rows.coefficient_NW.flatten())
        vectors = expected_estimates(self.double, self.x_PD, table.view(len(REGIMES), P, Y) / groups)
        square_N = square_norms(self.double, self.x_PD[rows.prompt_N], rows.leaf_NW, rows.coefficient_NW)
        return vectors, torch.zeros(len(REGIMES)).double().index_add(0, rows.regime_N, square_N) / groups

    def _prompt_square(self, batches: list["_Rows"]) -> float:
        """Mean over prompts of the squared norm of a prompt's mean estimate, without the noise of the sample."""
        P, count = len(self.x_PD), len(batches)
        tables = [(b.leaf_NW.reshape(P, -1), b.coefficient_NW.reshape(P, -1) * P / len(b.prompt_N)) for b in batches]
        own = sum(float(square_norms(self.double, self.x_PD, *table).mean()) for table in tables)
        if count == 1:
            return own
        leaf, coefficient = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
        return (float(square_norms(self.double, self.x_PD, leaf, coefficient).mean()) - own) / (count * (count - 1))


@dataclass(frozen=True)
class _Rows:
    """Kept rows of N groups side by side: their leaves and coefficients (0 where a group has fewer), prompt and regime."""

    prompt_N: Tensor
    regime_N: Tensor
    leaf_NW: Tensor
    coefficient_NW: Tensor

    @classmethod
    def of(cls, batch: Batch, signal: Signal) -> "_Rows":
        plan, groups = signal.plan, len(batch.prompt_P)
        group = plan.rows_N // signal.group_size
        counts = torch.bincount(group, minlength=groups)
        column = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
        shape = (groups, max(1, int(counts.max())))
        leaf, coefficient = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape).double()
        leaf[group, column] = kept_leaves(batch, signal)
        coefficient[group, column] = (plan.weights_N * plan.advantages_N).double()
        return cls(batch.prompt_P, regime_codes(signal.hits_before_P, batch.rollouts.valid_PG.sum(1)), leaf, coefficient)


def _report(bench: _Bench, constructor: str, moments: _Moments, method: Method) -> GradientReport:
    total_BD, second = moments.vectors_BRD.sum(1), float(moments.square_BR.sum(1).mean())
    g_D = bench.exact_D
    square, along = float(_squares(total_BD).sum()), float(total_BD.mean(0) @ g_D)
    variance, cosine = _headline(total_BD, moments.square_BR.sum(1), g_D)
    known = variance is not None and cosine is not None
    sine = max(0.0, 1 - cosine**2) ** 0.5 if cosine is not None else None
    variance_se, cosine_se = (0.0, 0.0) if method == "exact" else _jackknife(total_BD, moments.square_BR.sum(1), g_D)
    return GradientReport(
        constructor=constructor,
        learnable=moments.learnable,
        update_width=moments.update_width,
        variance=variance,
        cosine=cosine,
        regime_before=moments.before,
        regime_after=moments.after,
        sine=sine,
        scale=along / square if known else None,
        residual=sine if along > 0 else 1.0 if known else None,
        within=_ratio(second - moments.prompt_square, second - square) if known else None,
        by_regime=_by_regime(moments, g_D, abs(along) if known else 0.0, second),
        by_level=_by_level(bench.double, total_BD, g_D, abs(along) if known else 0.0, square if known else 0.0),
        method=method,
        cosine_se=cosine_se if known else None,
        variance_se=variance_se if known else None,
        prompts=len(bench.x_PD),
        group_size=bench.group_size,
        rollouts_per_group=bench.group_size if get_constructor(constructor).rollouts else 0,
        sampler=bench.sampler,
    )


def _squares(vectors_BD: Tensor) -> Tensor:
    """Entry by entry the square of the mean vector, without the noise of the B batches: mean over pairs of batches, (D,)."""
    count = len(vectors_BD)
    if count == 1:
        return vectors_BD[0].square()
    return (vectors_BD.sum(0).square() - vectors_BD.square().sum(0)) / (count * (count - 1))


def _headline(total_BD: Tensor, second_B: Tensor, g_D: Tensor) -> tuple[float | None, float | None]:
    """Relative variance and cosine; None where E is 0 or not told from it."""
    square, second = float(_squares(total_BD).sum()), float(second_B.mean())
    if square <= 1e-20 * second or second == 0:
        return None, None
    return max(0.0, second / square - 1), _cosine(float(total_BD.mean(0) @ g_D), square, float(g_D.square().sum()))


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


def _by_regime(moments: _Moments, g_D: Tensor, along: float, second: float) -> dict[str, RegimePart]:
    parts = {}
    for r, name in enumerate(REGIMES):
        vectors_BD = moments.vectors_BRD[:, r]
        own = float(vectors_BD.mean(0) @ g_D)
        parts[name] = RegimePart(
            groups=getattr(moments.before, name),
            projection=_ratio(own, along),
            cosine=_cosine(own, float(_squares(vectors_BD).sum()), float(g_D.square().sum())),
            square=_ratio(float(moments.square_BR[:, r].mean()), second),
        )
    return parts


def _by_level(policy: TreePolicy, total_BD: Tensor, g_D: Tensor, along: float, square: float) -> dict[str, LevelPart]:
    names, part_D = part_names(policy), part_of_parameter(policy)
    columns = torch.stack([_squares(total_BD), g_D.square(), total_BD.mean(0) * g_D])
    sums_3S = torch.zeros(3, len(names)).double().index_add(1, part_D, columns)
    whole = float(g_D.square().sum())
    return {
        name: LevelPart(_ratio(own, square), exact / whole, _ratio(inner, along), _cosine(inner, own, exact))
        for name, (own, exact, inner) in zip(names, sums_3S.T.tolist(), strict=True)
    }


def _cosine(inner: float, square: float, other: float) -> float | None:
    if square <= 0 or other <= 0:
        return None
    return min(1.0, max(-1.0, inner / (square * other) ** 0.5))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _regime(shares_R: Tensor) -> Regime:
    zero, single, multi, full = shares_R.tolist()
    return Regime(zero, single, multi, full, learnable=single + multi)


def _mean_regime(regimes: Sequence[Regime]) -> Regime:
    return _regime(torch.tensor([[getattr(regime, name) for name in REGIMES] for regime in regimes]).double().mean(0))
