"""Dead and learnable groups at any G, and the best G for a budget of rollouts. N points as in `hit_rates`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recast_analysis.planner.hit_rates import Bounded, Estimate, Fitted, Floats, HitRates, counted
from recast_analysis.planner.prompt_hits import PromptHits
from recast_sim.closed_forms.hit_prediction import power_moment
from recast_sim.closed_forms.iid_groups import rloo_variance

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class SizePlan:
    """Groups of one G.

    Attributes:
        all_zero, all_hit, learnable: shares of groups.
        counted: all-zero and learnable shares from the log's own rollouts, without a model, where they hold G of a prompt.
        groups: whole groups that the budget pays.
        signal_to_noise: of the budget's gradient along a hit's logit (`signal_to_noise`); None where no Beta was fitted.
    """

    group_size: int
    all_zero: Estimate
    all_hit: Estimate
    learnable: Estimate
    counted: tuple[Estimate, Estimate] | None
    groups: int
    signal_to_noise: Estimate | None

    @property
    def learnable_groups(self) -> Estimate:
        return self.learnable.map(lambda share: share * self.groups)


def size_plans(log: PromptHits, rates: HitRates, rollouts: int, also: Sequence[int] = ()) -> list[SizePlan]:
    """A row for each of `SIZES`, the log's own G, and those named."""
    return [_plan(log, rates, rollouts, G) for G in sorted({*SIZES, max(2, log.group_size), *also})]


def _plan(log: PromptHits, rates: HitRates, rollouts: int, G: int) -> SizePlan:
    zero, full, learnable = rates.flat(G)
    groups = rollouts // G
    ratio = None
    if isinstance(rates, Fitted) and groups:
        ratio = rates.estimate(lambda mean_N, theta_N: signal_to_noise(mean_N, theta_N, G, groups))
    return SizePlan(G, zero, full, learnable, counted(log, G), groups, ratio)


def signal_to_noise(mean_N: Floats, theta_N: Floats, group_size: int, groups: int) -> Floats:
    """Mean over standard deviation of RLOO's gradient from so many groups, along a hit's logit that all prompts share, (N,).

    In that direction the score of a rollout is s = r - p, so that hits alone say all of it: a prompt's gradient is
    x = p (1 - p), a group's estimate the sample variance of its rewards, and `rloo_variance` holds with
    z1 = x (1 - 4 x) / 4 and z2 = x (1 - 2 x) / 2. Prompts are drawn anew for each group, so Var(x) over prompts is noise too.
    """
    x_N, square_N = _moments(mean_N, theta_N)
    own_N = rloo_variance(np.maximum(x_N - 4 * square_N, 0) / 4, (x_N - 2 * square_N) / 2, group_size)
    return x_N * (groups / (own_N + np.maximum(square_N - x_N**2, 0))) ** 0.5


def best_width(rates: HitRates, rollouts: int) -> Estimate | None:
    """The G of most signal to noise, not rounded: 1 + sqrt(2 E[x^2] / Var(x)), `best_rloo_width` of the above.

    It is at least 2.41, and all rollouts where prompts cannot be told apart. None where no Beta was fitted.
    """
    if isinstance(rates, Bounded):
        return None

    def width(mean_N: Floats, theta_N: Floats) -> Floats:
        x_N, square_N = _moments(mean_N, theta_N)
        between_N = np.maximum(square_N - x_N**2, 1e-300)
        return np.minimum(1 + (2 * square_N / between_N) ** 0.5, float(rollouts))

    return rates.estimate(width)


def best_whole(width: float, rates: Fitted, rollouts: int) -> int:
    """The whole G beside a width that has more signal to noise."""
    mean_N, theta_N = rates.mean_N[:1], rates.theta_N[:1]
    near: Sequence[int] = sorted({max(2, int(width)), max(2, int(width) + 1)})
    per_rollout = [signal_to_noise(mean_N, theta_N, G, 1)[0] / G**0.5 for G in near]
    return min(near[int(np.argmax(per_rollout))], max(2, rollouts))


def _moments(mean_N: Floats, theta_N: Floats) -> tuple[Floats, Floats]:
    """E[x] and E[x^2] over prompts, x = p (1 - p)."""
    return power_moment(mean_N, theta_N, 1, 1), power_moment(mean_N, theta_N, 2, 2)
