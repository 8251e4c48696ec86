"""Closed forms of the gradient weight w(p) of each constructor on i.i.d. groups with binary rewards.

G is the group size, p the hit rate of a prompt, K the hits of a group, J the hits among the other G - 1 rollouts of one.
numpy and scipy only, vectorised over p.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy.special import xlogy

from recast_sim.closed_forms.iid_groups import Array, check_group_size, check_probability, learnable_fraction


@dataclass(frozen=True)
class Weight:
    """A constructor's gradient weight. `per` is "rollout", "kept rollout" or "group", see `weight`; G is `least` or more."""

    function: Callable[..., Array]
    per: str
    formula: str
    least: int = 2


def weight(name: str, p: ArrayLike, group_size: int, **parameters: Any) -> Array:
    """w(p) of a constructor: how hard its expected gradient pulls at a prompt of hit rate p. The shape of `p`.

    With A the advantages of one group and s = grad log pi of its rows, by the constructor's `per`:

    - "rollout": E[sum of A s] / G = w(p) grad p, the loss averaged over all rows of the group (G + 1 of them in visurf);
    - "kept rollout": E[sum of A s] / kept rows = w(p) grad p over the groups that are kept: all G rows of the groups that dapo
      keeps after its redraw, two_grpo's two, pods' `pods_width`;
    - "group": E[sum of A s] = w(p) grad p, for the pairs and anchors whose loss averages over 1 or 2 kept rows or over groups
      (of a pair this is the positive half alone: the negative half falls on the hardest miss, not along grad p).

    Anchors are weighted with ratio 1 (but in luffy, tempered_anchor and mixture_anchor), and a prompt with an anchor has one
    target; `repair_only` is for misses that all score alike. Denominators have no eps.

    Args:
        name: one of `weight_names()`.
        parameters: fields of `SignalConfig` that concern the constructor, at its defaults: `std_ddof` (what divides by a
            standard deviation), `pass_k`, `pods_width`, `positive_weight` (w_reinforce), `luffy_gamma`, `w_plus` (pairs, sft),
            `w_anchor` (hybrid, grpo_anchor, rloo_anchor, hits_light_anchor), `anchor_power` (tempered_anchor), `mixture_gamma`.

    Raises:
        ValueError: unknown name, a hit rate outside [0, 1] (or 0 where the weight divides by it), or G below 2.
    """
    if name not in WEIGHTS:
        raise ValueError(f"name: {name!r} has no closed form here; choose from {', '.join(WEIGHTS)}")
    return WEIGHTS[name].function(check_probability(p), check_group_size(group_size), **parameters)


def weight_names() -> tuple[str, ...]:
    """Constructors with a closed form. `dapo` is per drawn rollout, `dapo_kept` per rollout of a kept group."""
    return tuple(WEIGHTS)


def weight_from_advantages(hit_J: ArrayLike, miss_J: ArrayLike, p: ArrayLike) -> Array:
    """w(p) = E[hit_J - miss_J] over J ~ Binomial(G - 1, p): the weight of any advantage that depends on K alone.

    `hit_J` is a hit's advantage while J of the other G - 1 rollouts hit, `miss_J` a miss's. A hit's score vector is grad p / p
    on average and a miss's -grad p / (1 - p); the 1 / p and 1 / (1 - p) cancel against the chance of the rollout itself, so
    the sum is exact at p = 0 and p = 1 too.
    """
    hit_J, miss_J = np.asarray(hit_J, dtype=np.float64), np.asarray(miss_J, dtype=np.float64)
    return _mean_over_hits(hit_J - miss_J, check_probability(p))


def _mean_over_hits(value_J: Array, p: Array) -> Array:
    """E[value_J] over J ~ Binomial(len(value_J) - 1, p)."""
    J = np.arange(len(value_J))
    return scipy.stats.binom.pmf(J, len(J) - 1, p[..., None]) @ value_J


def _standardised(K: Array, G: int, std_ddof: int) -> tuple[Array, Array]:
    """GRPO's advantages of a hit and of a miss in groups of G with K hits; 0 where all rewards are equal."""
    if std_ddof not in (0, 1):
        raise ValueError(f"std_ddof: {std_ddof!r} must be 0 or 1")
    std = np.sqrt(K * (G - K) / (G * (G - std_ddof)))
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    return (1 - K / G) * scale, -K / G * scale


def _grpo(p: Array, G: int, std_ddof: int = 1) -> Array:
    K = np.arange(G + 1.0)
    hit_K, miss_K = _standardised(K, G, std_ddof)
    return weight_from_advantages(hit_K[1:], miss_K[:-1], p)


def _two_grpo(p: Array, G: int, std_ddof: int = 1) -> Array:
    return _grpo(p, 2, std_ddof)


def _pods(p: Array, G: int, pods_width: int = 8, std_ddof: int = 1) -> Array:
    if not isinstance(pods_width, Integral) or not 2 <= pods_width < G:
        raise ValueError(f"pods_width: {pods_width!r} must be a whole number from 2 to below the group size {G}")
    K = np.arange(G + 1.0)
    least, most = np.maximum(0, pods_width - (G - K)), np.minimum(pods_width, K)
    kept_K = np.clip(pods_width // 2, least, most)  # hits among the kept rows
    pull_K = kept_K * _standardised(kept_K, int(pods_width), std_ddof)[0] * G / pods_width  # of the hits, minus the misses'
    return weight_from_advantages(pull_K[1:] / K[1:], -pull_K[:-1] / (G - K[:-1]), p)


def _dapo_kept(p: Array, G: int, std_ddof: int = 1) -> Array:
    kept = learnable_fraction(p, G)
    if np.any(kept == 0):
        raise ValueError(f"p: {p[kept == 0].flat[0]:g} never yields a kept group; give rates strictly between 0 and 1")
    return _grpo(p, G, std_ddof) / kept


def _max_rl(p: Array, G: int) -> Array:
    return _mean_over_hits(G / np.arange(1.0, G + 1) - 1 + (np.arange(G) > 0), p)


def _ngrpo(p: Array, G: int, std_ddof: int = 1) -> Array:
    hit_K, miss_K = _standardised(np.arange(1.0, G + 2), G + 1, std_ddof)  # K + 1 hits among G + 1
    return weight_from_advantages(hit_K[1:], miss_K[:-1], p)


def _pass_at_k(p: Array, G: int, pass_k: int = 4) -> Array:
    if not isinstance(pass_k, Integral) or not 1 <= pass_k <= G:
        raise ValueError(f"pass_k: {pass_k!r} must be a whole number from 1 to the group size {G}")
    K, k = np.arange(G + 1), int(pass_k)
    fail_K = scipy.stats.hypergeom.pmf(0, G, K, k)  # C(G - K, k) / C(G, k): no hit in k rows drawn from the group
    spread = np.sqrt(fail_K * (1 - fail_K))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
    # one row is a miss: C(G - K - 1, k - 1) / C(G - 1, k - 1)
    fail_given_miss_K = scipy.stats.hypergeom.pmf(0, G - 1, K[:-1], k - 1)
    return weight_from_advantages((fail_K * scale)[1:], (fail_K[:-1] - fail_given_miss_K) * scale[:-1], p)


def _w_reinforce(p: Array, G: int, positive_weight: float = 0.1) -> Array:
    return np.full_like(p, positive_weight + 1)


def _repair_only(p: Array, G: int, std_ddof: int = 1) -> Array:
    anchor = float(_standardised(np.ones(1), G, std_ddof)[0][0])
    return _grpo(p, G, std_ddof) + anchor / G * (1 - p) ** (G - 1) / _positive(p)


def _injected(hit_K: Array, miss_K: Array, factor: Array, p: Array, G: int) -> Array:
    """One row of G is an anchor with `factor` on it, the others are sampled and each has the anchor beside it."""
    anchor = factor * _mean_over_hits(hit_K[1:], p) / _positive(p)
    return (anchor + (G - 1) * weight_from_advantages(hit_K[2:], miss_K[1:-1], p)) / G


def _add_gt(p: Array, G: int, std_ddof: int = 1) -> Array:
    return _injected(*_standardised(np.arange(G + 1.0), G, std_ddof), np.ones_like(p), p, G)


def _luffy(p: Array, G: int, luffy_gamma: float = 0.1) -> Array:
    K = np.arange(G + 1.0)
    return _injected(1 - K / G, -K / G, luffy_gamma * p / (p + luffy_gamma) ** 2, p, G)


def _visurf(p: Array, G: int, std_ddof: int = 1) -> Array:
    K, n = np.arange(G + 1.0), G + 1
    hit_K, miss_K = _standardised(K, G, 0)
    wider = np.sqrt((n - std_ddof) / G)  # with a hit the anchor is one more row at the mean
    rescue_hit, rescue_miss = (float(value[0]) for value in _standardised(np.ones(1), n, std_ddof))
    hit_K, miss_K = hit_K * wider, np.where(K == 0, rescue_miss, miss_K * wider)
    anchor = _alone(p, G, rescue_hit)
    return (G * weight_from_advantages(hit_K[1:], miss_K[:-1], p) + anchor) / n


def _alone(p: Array, G: int, w_anchor: float) -> Array:
    """What an anchor alone in the groups without a hit adds to E[sum of A s]: w_anchor (1 - p)^G / p."""
    return w_anchor * (1 - p) ** G / _positive(p)


def _grpo_anchor(p: Array, G: int, std_ddof: int = 1, w_anchor: float = 0.3) -> Array:
    return _grpo(p, G, std_ddof) + _alone(p, G, w_anchor) / G


def _rloo_anchor(p: Array, G: int, w_anchor: float = 0.3) -> Array:
    return 1 + _alone(p, G, w_anchor) / G


def _boundary_only(p: Array, G: int, w_plus: float = 1.0) -> Array:
    return w_plus * learnable_fraction(p, G) / _positive(p)


def _hybrid(p: Array, G: int, w_plus: float = 1.0, w_anchor: float = 0.3) -> Array:
    return _boundary_only(p, G, w_plus) + _alone(p, G, w_anchor)


def _recast(p: Array, G: int, w_plus: float = 1.0) -> Array:
    return w_plus * (0.0 - np.expm1(xlogy(G, _positive(p)))) / p


def _anchor(p: Array, G: int, w_plus: float = 1.0) -> Array:
    return w_plus / _positive(p)


def _tempered_anchor(p: Array, G: int, w_plus: float = 1.0, anchor_power: float = 1.0) -> Array:
    return w_plus * _positive(p) ** anchor_power / p


def _mixture_anchor(p: Array, G: int, w_plus: float = 1.0, mixture_gamma: float = 5e-4) -> Array:
    return w_plus / (p + mixture_gamma)


WEIGHTS: dict[str, Weight] = {
    "grpo": Weight(_grpo, "rollout", "E[sqrt(K (G - K))] / (G p (1 - p)), times sqrt((G - 1) / G) at ddof 1"),
    "dr_grpo": Weight(lambda p, G: np.full_like(p, (G - 1) / G), "rollout", "(G - 1) / G"),
    "rloo": Weight(lambda p, G: np.ones_like(p), "rollout", "1"),
    "max_rl": Weight(_max_rl, "rollout", "(1 - (1 - p)^(G - 1)) / p"),
    "two_grpo": Weight(_two_grpo, "kept rollout", "1 at ddof 0, sqrt(1/2) at ddof 1"),
    "pods": Weight(_pods, "kept rollout", "grpo over pods_width rows with as many hits as misses, where there are", 9),
    "dapo": Weight(_grpo, "rollout", "grpo"),
    "dapo_kept": Weight(_dapo_kept, "kept rollout", "grpo / learnable(p)"),
    "pass_at_k": Weight(_pass_at_k, "rollout", "sum over K; sqrt((G - k) / k) as p -> 0, k = 1 is grpo at ddof 0", 4),
    "w_reinforce": Weight(_w_reinforce, "rollout", "1 + lambda"),
    "psr": Weight(lambda p, G: np.ones_like(p), "rollout", "1"),
    "nsr": Weight(lambda p, G: np.ones_like(p), "rollout", "1"),
    "ngrpo": Weight(_ngrpo, "rollout", "grpo over G rewards and a virtual 1"),
    "add_gt": Weight(_add_gt, "rollout", "(E[hit] / p + (G - 1) E[hit - miss]) / G, a target in each group"),
    "luffy": Weight(_luffy, "rollout", "the same of dr_grpo, the anchor times gamma p / (p + gamma)^2"),
    "visurf": Weight(_visurf, "rollout", "grpo beside a row at the mean, and repaired where K = 0"),
    "repair_only": Weight(_repair_only, "rollout", "grpo + sqrt(G - 1) / G (1 - p)^(G - 1) / p at ddof 0"),
    "grpo_anchor": Weight(_grpo_anchor, "rollout", "grpo + w_anchor (1 - p)^G / (G p)"),
    "rloo_anchor": Weight(_rloo_anchor, "rollout", "1 + w_anchor (1 - p)^G / (G p)"),
    "hits_light_anchor": Weight(_rloo_anchor, "rollout", "1 + w_anchor (1 - p)^G / (G p)"),
    "boundary_only": Weight(_boundary_only, "group", "(1 - p^G - (1 - p)^G) / p"),
    "hybrid": Weight(_hybrid, "group", "boundary_only + w_anchor (1 - p)^G / p"),
    "recast": Weight(_recast, "group", "(1 - p^G) / p"),
    "near_miss": Weight(_recast, "group", "(1 - p^G) / p"),
    "sft": Weight(_anchor, "group", "1 / p"),
    "sft_hard_negative": Weight(_anchor, "group", "1 / p"),
    "tempered_anchor": Weight(_tempered_anchor, "group", "p^power / p, power = 1"),
    "mixture_anchor": Weight(_mixture_anchor, "group", "1 / (p + gamma), gamma = 0.0005"),
}


def _positive(p: Array) -> Array:
    if np.any(p == 0):
        raise ValueError("p: 0 must be above 0; this weight divides by p")
    return p
