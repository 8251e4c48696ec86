"""The exact instrument: the gradient of sampled Pass@1 by enumeration, and what a constructor's estimate makes of it.

At the on-policy point a group's estimate is a sum over its kept rows of coefficient times score vector, s_y = grad log pi(y).
On i.i.d. groups its moments are counted exactly (`recast_sim.exact.class_counts`), else they are sampled, with standard errors.
Axes: B independent batches of groups, R regimes, P prompts, D parameters.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from recast_sim.exact.class_counts import LeafClasses, count_moments, leaf_classes
from recast_sim.exact.cooling import Compass
from recast_sim.exact.gradient_report import EstimateMethod, GradientReport, Moments, make_report
from recast_sim.exact.gram import expected_estimate, expected_estimates, pass_at_1_gradient, square_norms
from recast_sim.exact.group_sums import ExactError
from recast_sim.exact.objectives import objective_gradients
from recast_sim.exact.traits import traits_of
from recast_sim.signal import REGIMES, Regime, Signal, SignalConfig, get_constructor, regime_codes
from recast_sim.signal.groups import ScoredGroups, kept_leaves, signal_of
from recast_sim.training.constructor_inputs import ConstructorInputs
from recast_sim.training.world_groups import roll_out
from recast_sim.world.environment import Environment
from recast_sim.world.generators import torch_generator
from recast_sim.world.policy import TreePolicy
from recast_sim.world.sampling import Sampler

__all__ = [
    "ExactError",
    "GradientReport",
    "each_report",
    "exact_report",
    "expected_estimate",
    "gradient_reports",
    "monte_carlo_report",
    "pass_at_1_gradient",
    "square_norms",
]

_METRIC_PROMPTS = 1024  # at most behind the Fisher metric, which needs no more to be one
BATCHES = 8  # independent batches behind a Monte-Carlo report's standard errors


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
    rest = (prompts, groups_per_prompt, seed, config, sampler)
    return list(each_report(policy, environment, constructors, (group_size,), *rest))


def each_report(
    policy: TreePolicy,
    environment: Environment,
    constructors: tuple[str, ...],
    group_sizes: Sequence[int],
    prompts: int,
    groups_per_prompt: int,
    seed: int,
    config: SignalConfig | None = None,
    sampler: Sampler = "iid",
) -> Iterator[GradientReport]:
    """`gradient_reports` of several group sizes, size by size, one after the other: what they share is computed once."""
    population = _Population(policy, environment, prompts, config or SignalConfig())
    for group_size in group_sizes:
        bench = _Bench(population, group_size, groups_per_prompt, seed, sampler)
        yield from map(bench.report, constructors)


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
    return _Bench(_Population(policy, environment, prompts, config or SignalConfig()), group_size).exact(constructor)


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
    population = _Population(policy, environment, prompts, config or SignalConfig())
    return _Bench(population, group_size, groups_per_prompt, seed, sampler).monte_carlo(constructor)


@dataclass(frozen=True)
class _Population:
    """A policy and the prompts that its gradients are means over, with what no group size changes computed once."""

    policy: TreePolicy
    environment: Environment
    prompts: int
    config: SignalConfig

    @cached_property
    def double(self) -> TreePolicy:
        return copy.deepcopy(self.policy).double()

    @cached_property
    def x_PD(self) -> Tensor:
        return self.environment.train.x_ND[: self.prompts].double()

    @cached_property
    def compass(self) -> Compass:
        gradients = objective_gradients(self.double, self.environment, self.prompts)
        return Compass(self.double, self.x_PD[:_METRIC_PROMPTS], gradients)

    @cached_property
    def by_score(self) -> LeafClasses:
        return leaf_classes(self.double, self.environment, self.prompts, self.config, structural=True)

    @cached_property
    def by_hit(self) -> LeafClasses:
        return leaf_classes(self.double, self.environment, self.prompts, self.config, structural=False)

    @cached_property
    def by_level(self) -> LeafClasses:
        return leaf_classes(self.double, self.environment, self.prompts, self.config, structural=True, level_wise=True)


@dataclass(frozen=True)
class _Bench:
    """Groups of one size on a population."""

    shared: _Population
    group_size: int
    groups_per_prompt: int = 0
    seed: int = 0
    sampler: Sampler = "iid"

    def report(self, constructor: str) -> GradientReport:
        if self.sampler == "iid":
            with contextlib.suppress(ExactError):
                return self.exact(constructor)
        return self.monte_carlo(constructor)

    def exact(self, constructor: str) -> GradientReport:
        return self._report(constructor, self.counted(constructor), "exact")

    def monte_carlo(self, constructor: str) -> GradientReport:
        return self._report(constructor, self.sampled(constructor), "exact" if self.deterministic else "monte_carlo")

    def _report(self, constructor: str, moments: Moments, method: EstimateMethod) -> GradientReport:
        rest = (method, len(self.shared.x_PD), self.group_size, self.sampler)
        return make_report(constructor, moments, self.shared.compass, *rest)

    @property
    def deterministic(self) -> bool:
        return self.sampler == "beam" and "random" not in (self.shared.config.tie_rule, self.shared.config.anchor_choice)

    def counted(self, constructor: str) -> Moments:
        traits = traits_of(
            constructor, self.shared.config, self.group_size, self.shared.by_score.scores_C, self.shared.double.levels
        )
        by_row = self.shared.by_score if traits.structural else self.shared.by_hit
        classes, prompts = self.shared.by_level if traits.level_wise else by_row, len(self.shared.x_PD)
        counted = count_moments(classes, constructor, self.shared.config, self.group_size, traits.last_slot)
        return Moments(
            vectors_BRD=expected_estimates(self.shared.double, self.shared.x_PD, counted.coefficient_RPYW / prompts)[None],
            square_BR=counted.square_RP.mean(1)[None],
            prompt_square=float(counted.mean_square_P.mean()),
            learnable=float(counted.learnable_P.mean()),
            update_width=float(counted.width_P.mean()),
            before=_regime(counted.before_RP.mean(1)),
            after=_regime(counted.after_RP.mean(1)),
        )

    @cached_property
    def batches(self) -> list[ScoredGroups]:
        """The sampled groups, all prompts in each batch, a prompt's groups one after the other."""
        count = 1 if self.deterministic else BATCHES
        groups = 1 if self.deterministic else self.groups_per_prompt // count
        if not self.deterministic and (groups < 1 or self.groups_per_prompt % count):
            raise ValueError(
                f"groups_per_prompt: {self.groups_per_prompt} must be a multiple of {count}, the number of batches"
            )
        prompt_P = torch.arange(len(self.shared.x_PD)).repeat_interleave(groups)
        rest = (self.group_size, self.sampler, self.shared.config)
        seeds = [torch_generator(self.seed, "gradient groups", batch) for batch in range(count)]
        return [roll_out(self.shared.policy, self.shared.environment, prompt_P, *rest, seed) for seed in seeds]

    def sampled(self, constructor: str) -> Moments:
        seeds = [torch_generator(self.seed, "gradient signal", batch) for batch in range(len(self.batches))]
        rule = get_constructor(constructor)
        # the policy is its own reference, nothing was seen before
        inputs = ConstructorInputs(rule, self.shared.policy, self.shared.environment)
        batches = [inputs.supply(batch, self.shared.policy) for batch in self.batches]
        signals = [signal_of(batch, rule, self.shared.config, seed) for batch, seed in zip(batches, seeds, strict=True)]
        rows = [_Rows.of(batch, signal) for batch, signal in zip(batches, signals, strict=True)]
        moments = [self._split(part) for part in rows]
        return Moments(
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
        P, Y, groups = len(self.shared.x_PD), self.shared.double.leaves, len(rows.prompt_N)
        flat = ((rows.regime_N * P + rows.prompt_N)[:, None] * Y + rows.leaf_NM).flatten()
        table = torch.zeros(len(REGIMES) * P * Y, rows.coefficient_NMW.shape[2]).double()
        table.index_add_(0, flat, rows.coefficient_NMW.flatten(0, 1))
        vectors = expected_estimates(self.shared.double, self.shared.x_PD, table.view(len(REGIMES), P, Y, -1) / groups)
        square_N = square_norms(self.shared.double, self.shared.x_PD[rows.prompt_N], rows.leaf_NM, rows.coefficient_NMW)
        return vectors, torch.zeros(len(REGIMES)).double().index_add(0, rows.regime_N, square_N) / groups

    def _prompt_square(self, batches: list["_Rows"]) -> float:
        """Mean over prompts of the squared norm of a prompt's mean estimate, without the noise of the sample."""
        policy, x_PD = self.shared.double, self.shared.x_PD
        P, count = len(x_PD), len(batches)
        W = batches[0].coefficient_NMW.shape[2]
        tables = [(b.leaf_NM.reshape(P, -1), b.coefficient_NMW.reshape(P, -1, W) * P / len(b.prompt_N)) for b in batches]
        own = sum(float(square_norms(policy, x_PD, *table).mean()) for table in tables)
        if count == 1:
            return own
        leaf, coefficient = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
        return (float(square_norms(policy, x_PD, leaf, coefficient).mean()) - own) / (count * (count - 1))


@dataclass(frozen=True)
class _Rows:
    """Kept rows of N groups side by side: their leaves and coefficients (0 where a group has fewer), prompt and regime."""

    prompt_N: Tensor
    regime_N: Tensor
    leaf_NM: Tensor
    coefficient_NMW: Tensor

    @classmethod
    def of(cls, batch: ScoredGroups, signal: Signal) -> "_Rows":
        plan, groups = signal.plan, len(batch.prompt_P)
        group = plan.rows_N // signal.group_size
        counts = torch.bincount(group, minlength=groups)
        column = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
        shape = (groups, max(1, int(counts.max())))
        leaf, coefficient = torch.zeros(shape, dtype=torch.int64), torch.zeros(*shape, plan.advantages_NL.shape[1]).double()
        leaf[group, column] = kept_leaves(batch, plan, signal.group_size)
        coefficient[group, column] = (plan.weights_N[:, None] * plan.advantages_NL).double()
        return cls(batch.prompt_P, regime_codes(signal.hits_before_P, batch.valid_PG.sum(1)), leaf, coefficient)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _regime(shares_R: Tensor) -> Regime:
    zero, single, multi, full = shares_R.tolist()
    return Regime(zero, single, multi, full, learnable=single + multi)


def _mean_regime(regimes: Sequence[Regime]) -> Regime:
    return _regime(torch.tensor([[getattr(regime, name) for name in REGIMES] for regime in regimes]).double().mean(0))
