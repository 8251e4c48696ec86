"""The advantages of the public methods, written out in plain Python from their papers: what a target is held against."""

import math
from collections.abc import Callable

from recast_analysis.conform.added_formulas import ADDED_FORMULAS
from recast_analysis.conform.formula import (
    DDOF_CHOICE,
    DENOMINATORS,
    EQUAL_CHOICE,
    GROUP_CHOICES,
    GRPO_CHOICES,
    MISSING_BY_ROW_CHOICE,
    MISSING_CHOICE,
    STD_CHOICE,
    Formula,
    Group,
    Setting,
    all_equal,
    by_std,
    centred,
    joined,
    mean_of,
    over_std,
    variance_of,
)

_WHITEN = {"denominator": ("sqrt(var + 1e-8)", *(name for name in DENOMINATORS if name != "sqrt(var + 1e-8)"))}


def _dr_grpo(groups: list[Group], setting: Setting) -> Group:
    return joined([centred(group, setting) for group in groups])


def _rloo(groups: list[Group], setting: Setting) -> Group:
    """The reward minus the mean of the others', which is n / (n - 1) (r - mean)."""
    found: Group = {}
    for group in groups:
        n = len(group)
        found |= {row: value * (n / (n - 1) if n > 1 else 1.0) for row, value in centred(group, setting).items()}
    if setting["whitened"] == "no":
        return found
    mean, std = mean_of(found) if found else 0.0, math.sqrt(variance_of(found, {}))
    return {row: (value - mean) / (std + 1e-4) for row, value in found.items()}


def _gpg(groups: list[Group], setting: Setting) -> Group:
    """(N / rows with a reward other than 0) (r - mean)."""
    rewards = joined(groups)
    scale = len(rewards) / max(1, sum(reward != 0 for reward in rewards.values()))
    return {row: scale * value for row, value in _dr_grpo(groups, setting).items()}


def _whitened(values: Group, setting: Setting) -> Group:
    mean = mean_of(values) if values else 0.0
    moved = dict.fromkeys(values, 0.0) if all_equal(values) else {row: value - mean for row, value in values.items()}
    return over_std(moved, variance_of(values, setting), setting)


def _reinforce_pp(groups: list[Group], setting: Setting) -> Group:
    return _whitened(joined(groups), setting)


def _reinforce_pp_baseline(groups: list[Group], setting: Setting) -> Group:
    return _whitened(_dr_grpo(groups, setting), setting)


def _max_rl(groups: list[Group], setting: Setting) -> Group:
    """(r - mean) / (mean + eps); 0 for a group without reward."""
    found: Group = {}
    for group in groups:
        scale = mean_of(group) + float(setting["eps"])
        found |= {row: value / scale if scale and mean_of(group) else 0.0 for row, value in centred(group, setting).items()}
    return found


def _ngrpo(groups: list[Group], setting: Setting) -> Group:
    """Mean and std over the rewards and one more, of 1."""
    found: Group = {}
    for group in groups:
        seen = {**group, -1: 1.0}
        moved = dict.fromkeys(group, 0.0) if all_equal(seen) else {row: r - mean_of(seen) for row, r in group.items()}
        found |= over_std(moved, variance_of(seen, setting), setting)
    return found


def _signed(positive: float, negative: float) -> Callable[[list[Group], Setting], Group]:
    """`positive` times the reward on hits, -`negative` on misses: no baseline."""
    return lambda groups, _: {row: positive * r if r > 0 else -negative for row, r in joined(groups).items()}


def _best_of_k(groups: list[Group], setting: Setting) -> Group:
    """The best row of a group gets its lead over the second best, over the std; every other row 0."""
    found: Group = {}
    for group in groups:
        found |= dict.fromkeys(group, 0.0)
        if not all_equal(group):
            second, best = sorted(group, key=lambda row: (group[row], -row))[-2:]
            found |= over_std({best: group[best] - group[second]}, variance_of(group, setting), setting)
    return found


def _gdpo(functions: list[list[Group]], setting: Setting) -> Group:
    """Each reward function's z-scores, summed, then whitened over the batch."""
    total: Group = {}
    inner = {**setting, "denominator": setting["each function's"]}
    for groups in functions:
        for row, value in by_std(groups, inner).items():
            total[row] = total.get(row, 0.0) + value
    return _whitened(total, setting)


_WHITENED = {**DDOF_CHOICE, **_WHITEN, **MISSING_CHOICE, **EQUAL_CHOICE}
_WHITENED_BASELINE = {**DDOF_CHOICE, **_WHITEN, **GROUP_CHOICES, **EQUAL_CHOICE}
_BY_STD = {**DDOF_CHOICE, **STD_CHOICE, **MISSING_CHOICE, **EQUAL_CHOICE}
FORMULAS: dict[str, Formula] = {
    "grpo": Formula(by_std, GRPO_CHOICES, "arXiv 2402.03300", closed_form="grpo"),
    "dr_grpo": Formula(_dr_grpo, GROUP_CHOICES, "arXiv 2503.20783", closed_form="dr_grpo"),
    "rloo": Formula(_rloo, {"whitened": ("no", "over the batch"), **GROUP_CHOICES}, "arXiv 2402.14740", closed_form="rloo"),
    "gpg": Formula(_gpg, GROUP_CHOICES, "arXiv 2504.02546", by_group=False),
    "reinforce_pp": Formula(
        _reinforce_pp,
        _WHITENED,
        "arXiv 2501.03262",
        by_group=False,
        spreads=True,
    ),
    "reinforce_pp_baseline": Formula(
        _reinforce_pp_baseline,
        _WHITENED_BASELINE,
        "arXiv 2501.03262",
        by_group=False,
        spreads=True,
    ),
    "max_rl": Formula(_max_rl, {"eps": ("1e-6", "0", "1e-4"), **MISSING_CHOICE}, "arXiv 2602.02710", closed_form="max_rl"),
    "ngrpo": Formula(_ngrpo, _BY_STD, "arXiv 2509.18851", closed_form="ngrpo"),
    "w_reinforce": Formula(_signed(0.1, 1.0), MISSING_BY_ROW_CHOICE, "arXiv 2506.01347", closed_form="w_reinforce"),
    "psr": Formula(_signed(1.0, 0.0), MISSING_BY_ROW_CHOICE, "arXiv 2506.01347"),
    "nsr": Formula(_signed(0.0, 1.0), MISSING_BY_ROW_CHOICE, "arXiv 2506.01347"),
    "best_of_k": Formula(_best_of_k, _BY_STD, "arXiv 2503.19595"),
    "dapo": Formula(by_std, GRPO_CHOICES, "arXiv 2503.14476: grpo, and groups of equal rewards are drawn anew"),
    "gdpo": Formula(
        _gdpo,
        {**DDOF_CHOICE, **_WHITEN, "each function's": ("std + 1e-6", "std + 1e-4"), **GROUP_CHOICES, **EQUAL_CHOICE},
        "arXiv 2601.05242",
        by_group=False,
        spreads=True,
        each_function=True,
    ),
    **ADDED_FORMULAS,
}
