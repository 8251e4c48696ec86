"""Calibration: give a regime, get an environment and a trained base policy that show it.

For a chosen convergence, the sharpness beta is solved so that the all-zero share fits. The popularity exponent alpha is taken
from a short list so that the single-hit share fits as well; where hit rates still differ too much between prompts, a smaller
catalog shows the same share with a flatter preference, and may be asked for. Nothing but the regime enters the search.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import brentq

from recast_sim.closed_forms.iid_groups import fit_beta, regime_given_hit_rates
from recast_sim.errors import RecastError
from recast_sim.world.environment import Environment, EnvironmentConfig, make_environment
from recast_sim.world.evaluation import reward_probability
from recast_sim.world.policy import PolicyConfig
from recast_sim.world.pretraining import BasePolicy, train_base

_ALPHAS, _SMALLER, _CLOSE_ENOUGH = (0.0, 0.3, 0.6, 0.9), (2, 3, 4, 6), 0.002
_STEP, _MAX_STEPS, _BETA_STEP = 1.25, 12, 0.01  # beta: growth of the bracket, its number of steps, resolution
_HIT_RATE_TOLERANCE = 0.1


class CalibrationError(RecastError):
    """No environment in reach shows the regime; the message gives the nearest one and what to change."""


@dataclass(frozen=True)
class Calibration:
    """A calibrated world: its config, the regime (all_zero, single_hit, multi_hit) to expect on train prompts, the base
    policy's mean hit rate there, and the Beta(a, b) fitted to its hit rates (None where they do not vary)."""

    config: EnvironmentConfig
    regime: tuple[float, float, float]
    hit_rate: float
    beta_fit: tuple[float, float] | None


def calibrate(
    target: Sequence[float],
    group_size: int,
    config: EnvironmentConfig,
    policy: PolicyConfig,
    convergence: float,
    seed: int,
    tolerance: float = 0.01,
    cut_items: bool = False,
    tell: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> Calibration:
    """Find beta and alpha such that the base policy shows `target` = (all_zero, single_hit, multi_hit) on train prompts.

    Args:
        target: shares of groups, summing to 1.
        config: the environment's other knobs; its `alpha` is tried first.
        convergence: see `train_base`.
        tolerance: largest allowed deviation of a share.
        cut_items: try fewer items where that alone is left. A comparison does not: its settings say how many there are.
        tell: hears how many worlds were tried, of those that may be.

    Raises:
        CalibrationError: the target is no regime, is one that no independent rollouts can show, or none of the tried worlds is
            within the tolerance.
    """
    if len(target) != 3 or min(target) < 0 or abs(sum(target) - 1) > 1e-6:
        raise CalibrationError(f"target: {tuple(target)} must be three shares (all_zero, single_hit, multi_hit) summing to 1")
    most = most_single_hits(target[0], group_size)
    if target[1] > most + tolerance:
        raise CalibrationError(
            f"target: {tuple(target)} is out of reach: beside {target[0]:g} all-zero groups of {group_size} rollouts at most "
            f"{most:.3f} of all groups are single hits, and that where every prompt has the same hit rate; ask for fewer"
        )
    best, miss, worlds = None, np.inf, _worlds(config, cut_items)
    for tried, (items, alpha) in enumerate(worlds):
        tell("worlds tried, at most", tried, len(worlds))
        if items < config.items and best is not None and best.regime[1] > target[1]:
            break  # hit rates are too alike already
        found = _solve_beta(target[0], group_size, replace(config, alpha=alpha, items=items), policy, convergence, seed)
        if (off := float(np.abs(np.subtract(found.regime, target)).max())) < miss:
            best, miss = found, off
        if miss <= 0.6 * tolerance:  # leaves room for the sampling error of a measured regime
            break
    if best is None or miss > tolerance:
        nearest = "none" if best is None else _as_asked(best.regime)
        raise CalibrationError(
            f"target: no world within {tolerance} of {tuple(target)} at G = {group_size}; nearest {nearest}; "
            "change items, rho, blur or convergence"
        )
    return best


def _as_asked(regime: Sequence[float]) -> str:
    """The shares with three decimals that add up to 1, so that they can be asked for as they stand."""
    all_zero, single = round(regime[0], 3), round(regime[1], 3)
    return f"{all_zero:.3f} / {single:.3f} / {max(0.0, 1 - all_zero - single):.3f}"


def most_single_hits(all_zero: float, group_size: int) -> float:
    """The largest share of single-hit groups beside a share of all-zero ones, G (z^((G-1)/G) - z).

    With hit rate p, z = (1 - p)^G and the single-hit share is that function of z, which is concave: where hit rates differ
    between prompts, the share lies below (Jensen).
    """
    return group_size * (all_zero ** ((group_size - 1) / group_size) - all_zero)


def _worlds(config: EnvironmentConfig, cut_items: bool) -> list[tuple[int, float]]:
    """Items and alpha in the order of the search."""
    smaller = [(config.items // part, 0.0) for part in _SMALLER if cut_items and config.items // part >= 2]
    return [*((config.items, alpha) for alpha in dict.fromkeys((config.alpha, *_ALPHAS))), *smaller]


def calibrate_hit_rate(
    hit_rate: float, group_size: int, config: EnvironmentConfig, policy: PolicyConfig, convergence: float, seed: int
) -> Calibration:
    """Find the beta at which the base policy's mean hit rate on train prompts is `hit_rate`, within 10 %.

    Raises:
        CalibrationError: the hit rate is not in (0, 1), or out of reach of beta alone.
    """
    if not 0 < hit_rate < 1:
        raise CalibrationError(f"hit_rate: {hit_rate} must lie between 0 and 1")

    def excess(found: Calibration) -> float:
        off = np.log(hit_rate / found.hit_rate)
        return 0.0 if abs(off) < _HIT_RATE_TOLERANCE / 3 else off

    best = _search_beta(excess, group_size, config, policy, convergence, seed)
    if abs(best.hit_rate / hit_rate - 1) > _HIT_RATE_TOLERANCE:
        raise CalibrationError(
            f"hit_rate: {hit_rate:g} is out of reach of beta; nearest {best.hit_rate:.3g}; change items, alpha or convergence"
        )
    return best


def _solve_beta(
    all_zero: float, group_size: int, config: EnvironmentConfig, policy: PolicyConfig, convergence: float, seed: int
) -> Calibration:
    def excess(found: Calibration) -> float:
        off = found.regime[0] - all_zero
        return 0.0 if abs(off) < _CLOSE_ENOUGH else off

    return _search_beta(excess, group_size, config, policy, convergence, seed)


def _search_beta(
    excess: Callable[[Calibration], float],
    group_size: int,
    config: EnvironmentConfig,
    policy: PolicyConfig,
    convergence: float,
    seed: int,
) -> Calibration:
    """The world along beta with the smallest excess, which falls as the preference gets sharper."""
    tried: dict[float, Calibration] = {}

    def at(beta: float) -> float:
        if beta not in tried:
            tried[beta] = _measure(replace(config, beta=beta), policy, convergence, group_size, seed)
        return excess(tried[beta])

    near, step = config.beta, _STEP if at(config.beta) > 0 else 1 / _STEP
    for _ in range(_MAX_STEPS):
        far = near * step
        if at(near) * at(far) <= 0:
            brentq(at, *sorted((near, far)), xtol=_BETA_STEP)
            break
        near = far
    return min(tried.values(), key=lambda found: abs(excess(found)))


def _measure(config: EnvironmentConfig, policy: PolicyConfig, convergence: float, group_size: int, seed: int) -> Calibration:
    environment = make_environment(config, seed)
    rates = hit_rates(environment, train_base(environment, policy, convergence, seed))
    zero, single, multi, full = regime_given_hit_rates(rates, group_size)
    varied = rates.std() > 1e-6 * rates.mean()
    regime = (float(zero), float(single), float(multi + full))
    return Calibration(config, regime, float(rates.mean()), fit_beta(rates) if varied else None)


@torch.no_grad()
def hit_rates(environment: Environment, base: BasePolicy) -> np.ndarray:
    """The base policy's total probability of what is rewarded at each train prompt, (N,)."""
    return reward_probability(base.policy, environment.train).double().numpy()
