"""The formulas that golden-v2 adds: subsets of a group's rows, and numbers scaled by what a group or a batch got.

k, m and T are the kit's own; docs/conform.md names them.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from math import comb

from recast_analysis.conform.formula import (
    DDOF_CHOICE,
    EQUAL_CHOICE,
    GROUP_CHOICES,
    GRPO_CHOICES,
    MISSING_CHOICE,
    NAN_ALONE,
    STD_CHOICE,
    Formula,
    Group,
    Rewards,
    Setting,
    all_equal,
    by_std,
    grouped,
    joined,
    mean_of,
    over_std,
    stands_alone,
    total_of,
    variance_of,
)

PASS_K = 3  # k of pass_at_k
PODS_ROWS = 3  # m of pods
TEMPERATURE = 0.5  # of exp_reward_sft
_MOST_WEIGHT = 1e6  # bnpo's factor, by its code
_ROUNDING = 1e-9  # relative: variances that differ by less are equal
_LARGEST = 40.0  # exp(reward / TEMPERATURE) is a float32


def _pass_at_k(groups: list[Group], setting: Setting) -> Group:
    """arXiv 2508.10751, analytical derivation: a subset of k gets its best reward, a row the mean over its subsets.

    With N rows of which M miss, R = 1 - C(M, k) / C(N, k) and s = sqrt(R (1 - R)), a hit gets (1 - R) / s and a miss
    (1 - R - C(M - 1, k - 1) / C(N - 1, k - 1)) / s. Here by order statistics, which holds of graded rewards too.
    """
    hits = setting["graded rewards"] == "above 0 is a hit"
    return joined(
        [_best_of_subsets({row: float(r > 0) if hits else r for row, r in group.items()}, setting) for group in groups]
    )


def _best_of_subsets(group: Group, setting: Setting) -> Group:
    """(mean best of the k-subsets that hold the row - mean best of all of them) / std of the latter."""
    rows, k = sorted(group, key=group.__getitem__), PASS_K
    if all_equal(group) or len(rows) < k:
        return dict.fromkeys(group, 0.0)
    best = [group[row] for row in rows]
    share = [comb(place, k - 1) / comb(len(rows), k) for place in range(len(rows))]  # of the subsets whose best this row is
    mean = math.fsum(p * value for p, value in zip(share, best, strict=True))
    variance = math.fsum(p * (value - mean) ** 2 for p, value in zip(share, best, strict=True))
    found = {}
    for place, row in enumerate(rows):
        own = best[place] * comb(place, k - 1)
        others = math.fsum(best[above] * comb(above - 1, k - 2) for above in range(place + 1, len(rows)))
        found[row] = (own + others) / comb(len(rows) - 1, k - 1) - mean
    return over_std(found, variance, setting)


def _pods(groups: list[Group], setting: Setting) -> Group:
    """arXiv 2504.13818, max-variance down-sampling: grpo on the m rows, lowest and highest, whose rewards vary most."""
    whole = setting["mean and std of"] == "the whole group"
    found: Group = {}
    for group in groups:
        kept = _most_varied(group, setting)
        numbers = by_std([group if whole else {row: group[row] for row in kept}], setting)
        found |= {row: numbers[row] if row in kept else 0.0 for row in group}
    return found


def _most_varied(group: Group, setting: Setting) -> set[int]:
    rows, m = sorted(group, key=group.__getitem__), PODS_ROWS
    if len(rows) <= m:
        return set(rows)
    splits = [rows[: m - high] + rows[len(rows) - high :] for high in range(m + 1)]
    variances = [variance_of({row: group[row] for row in split}, {"ddof": "0"}) for split in splits]
    best = [split for split, one in zip(splits, variances, strict=True) if one >= max(variances) * (1 - _ROUNDING)]
    return set(best[0 if setting["equal variances"] == "fewest high rows" else -1])


def _bnpo(groups: list[Group], setting: Setting) -> Group:
    """arXiv 2506.02864: (r - p) / Beta(p; 1 + a/3, 1 + b/3), p the group's mean, Beta(a, b) fitted to all p by moments.

    As its code has it both parameters are at least 1, the factor is at most 1e6, and one group has density 1. So have groups
    whose means agree, where nothing can be fitted.
    """
    means = [0.0 if stands_alone(group, setting) else mean_of(group) for group in groups]
    density = _fitted_density(means, setting)
    found: Group = {}
    for group, mean in zip(groups, means, strict=True):
        height = density(mean)
        factor = _MOST_WEIGHT if height * _MOST_WEIGHT < 1 else 1 / height
        equal = all_equal(group) and not stands_alone(group, setting)
        found |= {row: factor * (0.0 if equal else reward - mean) for row, reward in group.items()}
    return found


def _fitted_density(means: Sequence[float], setting: Setting) -> Callable[[float], float]:
    if len(means) < 2:
        return lambda _: 1.0
    by_group = dict(enumerate(means))
    center, spread = mean_of(by_group), variance_of(by_group, setting)
    widest = center * (1 - center)
    if spread <= 1e-12 * widest:
        return lambda _: 1.0
    alpha, beta = (max(1.0, 1 + (widest / spread - 1) * share / 3) for share in (center, 1 - center))
    constant = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
    return lambda p: math.exp(_times_log(alpha - 1, p) + _times_log(beta - 1, 1 - p) - constant)


def _times_log(factor: float, value: float) -> float:
    return 0.0 if factor == 0 else factor * (math.log(value) if value > 0 else -math.inf)


def _reward_share(groups: list[Group], setting: Setting) -> Group:
    """arXiv 2503.19618: r / mean, a row's weight in the gradient of the log of the group's mean likelihood."""
    found: Group = {}
    for group in groups:
        below = (mean_of(group) + float(setting["eps"])) * (len(group) if setting["shares sum to"] == "1" else 1)
        found |= {row: reward / below if below and mean_of(group) else 0.0 for row, reward in group.items()}
    return found


def _exp_reward_sft(groups: list[Group], setting: Setting) -> Group:
    """arXiv 2603.10279, abstract: w = exp(r / T) on each row; the scale of all weights is left open."""
    highest = 1.0 if setting["scale"] == "exp((r - 1) / T)" else 0.0
    return {row: math.exp((reward - highest) / TEMPERATURE) for row, reward in joined(groups).items()}


def _of_groups(words: str, holds: Callable[[Group], bool]) -> tuple[str, Callable[[Rewards, Sequence[Hashable]], bool]]:
    """A restriction to batches each of whose groups (its rewards by row, missing ones left out) is such a one."""
    return words, lambda rewards, ids: all(map(holds, grouped([total_of(reward) for reward in rewards], ids)))


def _pairs(rewards: Rewards, ids: Sequence[Hashable]) -> bool:
    return bool(ids) and all(list(ids).count(name) == 2 for name in ids)


_BY_ROW = {"missing reward": ("left out", "counts as 0", NAN_ALONE)}
_PASS_AT_K = {**STD_CHOICE, "graded rewards": ("above 0 is a hit", "the best of a subset"), **MISSING_CHOICE}
_PODS = {
    **DDOF_CHOICE,
    **STD_CHOICE,
    "mean and std of": ("the kept rows", "the whole group"),
    "equal variances": ("fewest high rows", "most high rows"),
    **MISSING_CHOICE,
    **EQUAL_CHOICE,
}
_BNPO = {**DDOF_CHOICE, **GROUP_CHOICES}
_SHARE = {"eps": ("1e-6", "0", "1e-4"), "shares sum to": ("the group's rows", "1"), **MISSING_CHOICE}
ADDED_FORMULAS: dict[str, Formula] = {
    "pass_at_k": Formula(
        _pass_at_k,
        _PASS_AT_K,
        "arXiv 2508.10751",
        closed_form="pass_at_k",
        parameters={"pass_k": PASS_K},
        since=2,
        only=_of_groups(f"groups of {PASS_K} rewards or more", lambda group: len(group) >= PASS_K),
    ),
    "pods": Formula(
        _pods,
        _PODS,
        "arXiv 2504.13818",
        since=2,
        only=_of_groups(f"groups of more than {PODS_ROWS} rewards", lambda group: len(group) > PODS_ROWS),
        interchangeable=True,
    ),
    "two_grpo": Formula(by_std, GRPO_CHOICES, "arXiv 2510.00977: grpo", since=2, only=("groups of two rows", _pairs)),
    "bnpo": Formula(
        _bnpo,
        _BNPO,
        "arXiv 2506.02864",
        by_group=False,
        spreads=True,
        since=2,
        only=_of_groups("groups whose mean reward is in [0, 1]", lambda group: 0 <= mean_of(group) <= 1),
    ),
    "reward_share": Formula(_reward_share, _SHARE, "arXiv 2503.19618", since=2),
    "exp_reward_sft": Formula(
        _exp_reward_sft,
        {"scale": ("exp(r / T)", "exp((r - 1) / T)"), **_BY_ROW},
        "arXiv 2603.10279",
        since=2,
        only=_of_groups(f"rewards up to {_LARGEST:g}", lambda group: max(group.values()) <= _LARGEST),
    ),
}
