"""The advantages of the public methods, written out in plain Python from their papers: what a target is held against.

A setting says how the published choices are made, by name; the first option of each is the reference. None is a missing reward.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

Reward = float | None
Rewards = Sequence[Reward | Sequence[Reward]]  # one a row, or one a row and reward function
Setting = Mapping[str, str]
Group = dict[int, float]  # rewards of the rows that count, by row

DENOMINATORS: dict[str, Callable[[float], float]] = {
    "std + 1e-6": lambda variance: math.sqrt(variance) + 1e-6,
    "std + 1e-4": lambda variance: math.sqrt(variance) + 1e-4,
    "std + 1e-5": lambda variance: math.sqrt(variance) + 1e-5,
    "std + 1e-8": lambda variance: math.sqrt(variance) + 1e-8,
    "sqrt(var + 1e-8)": lambda variance: math.sqrt(variance + 1e-8),
    "sqrt(var + 1e-6)": lambda variance: math.sqrt(variance + 1e-6),
    "max(std, 1e-6)": lambda variance: max(math.sqrt(variance), 1e-6),
    "max(std, 1e-4)": lambda variance: max(math.sqrt(variance), 1e-4),
}
_DDOF, _STD = {"ddof": ("1", "0")}, {"denominator": tuple(DENOMINATORS)}
_WHITEN = {"denominator": ("sqrt(var + 1e-8)", *(name for name in DENOMINATORS if name != "sqrt(var + 1e-8)"))}
_SINGLE = {"one row": ("0", "its reward")}
_MISSING = {"missing reward": ("left out", "counts as 0", "NaN for all that it is compared with")}
EQUAL = "equal rewards"
NOISE = 0.1  # more than this is no rounding error any more but a signal where there is none
_EQUAL = {EQUAL: ("0", "0 up to float32 rounding over the denominator")}


@dataclass(frozen=True)
class Formula:
    """A method: its numbers under a setting, the choices that it leaves open, and where it is published.

    Attributes:
        by_group: a group's numbers depend on its own rewards alone.
        spreads: a NaN reaches the whole batch, not its group alone.
        each_function: it is given the groups of each reward function, not those of their sum.
        closed_form: its name in `recast_sim.closed_forms`.
    """

    numbers: Callable[..., Group]
    choices: Mapping[str, tuple[str, ...]]
    source: str
    by_group: bool = True
    spreads: bool = False
    each_function: bool = False
    closed_form: str | None = None

    def reference(self) -> dict[str, str]:
        return {name: options[0] for name, options in self.choices.items()}

    def settings(self) -> list[dict[str, str]]:
        """Every combination of choices, the reference first, those that differ from it the least before others."""
        found = [dict(zip(self.choices, options, strict=True)) for options in product(*self.choices.values())]
        return sorted(found, key=lambda setting: differences(setting, self.reference()))


def local(formula: Formula, setting: Setting) -> bool:
    """Under this setting a group's numbers depend on its own rewards alone."""
    return formula.by_group and setting.get("std of") != "the batch" and setting.get("whitened", "no") == "no"


def differences(setting: Setting, reference: Setting) -> int:
    return sum(setting[name] != reference[name] for name in reference)


def advantages(formula: Formula, rewards: Rewards, ids: Sequence[Hashable], setting: Setting) -> list[float]:
    """One number a row, 0 where the reward is missing: (N,)."""
    spreads, given = setting.get("missing reward", "").startswith("NaN"), rewards
    if setting.get("missing reward", "left out") != "left out":
        rewards = [_filled(reward, 1.0 if spreads else 0.0) for reward in rewards]
    if formula.each_function:
        found = formula.numbers([_groups(column, ids) for column in _columns(rewards)], setting)
    else:
        found = formula.numbers(_groups([_total(reward) for reward in rewards], ids), setting)
    spoilt = _spoilt(formula, given, ids) if spreads else set()
    return [math.nan if row in spoilt else found.get(row, 0.0) for row in range(len(rewards))]


def _spoilt(formula: Formula, rewards: Rewards, ids: Sequence[Hashable]) -> set[int]:
    """Rows whose numbers a NaN reward reaches."""
    lacking = [reward is None or (isinstance(reward, Sequence) and None in reward) for reward in rewards]
    names = {name for name, lacks in zip(ids, lacking, strict=True) if lacks}
    return {row for row, name in enumerate(ids) if name in names or (names and formula.spreads)}


def rounding(rewards: Rewards) -> float:
    """What float32 may be off in a reward, or in the mean of some."""
    return 8 * 2**-24 * max((abs(total) for reward in rewards if (total := _total(reward)) is not None), default=0.0)


def slack(rewards: Rewards, ids: Sequence[Hashable], setting: Setting) -> list[float]:
    """What float32 rounding may leave of each row's number where all rewards of its group are equal, else 0."""
    totals = [_total(reward) for reward in rewards]
    gain = 1 / DENOMINATORS[setting["denominator"]](0.0) if setting.get("denominator") in DENOMINATORS else 1.0
    found = [0.0] * len(rewards)
    for group in _groups(totals, ids):
        if _equal(group):
            found = [min(NOISE, rounding([group[row]]) * gain) if row in group else old for row, old in enumerate(found)]
    return found


def _filled(reward: Reward | Sequence[Reward], value: float) -> Reward | Sequence[Reward]:
    if isinstance(reward, Sequence):
        return [value if one is None else one for one in reward]
    return value if reward is None else reward


def _columns(rewards: Rewards) -> list[list[Reward]]:
    rows = [reward if isinstance(reward, Sequence) else [reward] for reward in rewards]
    return [list(column) for column in zip(*rows, strict=True)]


def _total(reward: Reward | Sequence[Reward]) -> Reward:
    """The sum of what the reward functions said; None where none of them said anything."""
    if not isinstance(reward, Sequence):
        return reward
    said = [one for one in reward if one is not None]
    return math.fsum(said) if said else None


def _groups(rewards: Sequence[Reward], ids: Sequence[Hashable]) -> list[Group]:
    groups: dict[Hashable, Group] = {}
    for row, (reward, name) in enumerate(zip(rewards, ids, strict=True)):
        if reward is not None:
            groups.setdefault(name, {})[row] = reward
    return list(groups.values())


def _equal(group: Group) -> bool:
    return len(set(group.values())) < 2


def _mean(group: Group) -> float:
    return math.fsum(group.values()) / len(group)


def _variance(values: Group, setting: Setting) -> float:
    """0 where the values agree, whatever the rounding."""
    ddof = int(setting.get("ddof", "1"))
    if _equal(values) or len(values) <= ddof:
        return 0.0
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values.values()) / (len(values) - ddof)


def _centred(group: Group, setting: Setting) -> Group:
    if len(group) == 1 and setting.get("one row") == "its reward":
        return dict(group)
    return dict.fromkeys(group, 0.0) if _equal(group) else {row: reward - _mean(group) for row, reward in group.items()}


def _joined(groups: list[Group]) -> Group:
    return {row: value for group in groups for row, value in group.items()}


def _over(values: Group, variance: float, setting: Setting) -> Group:
    return {row: value / DENOMINATORS[setting["denominator"]](variance) for row, value in values.items()}


def _alone(group: Group, setting: Setting) -> bool:
    return len(group) == 1 and setting.get("one row") == "its reward"


def _grpo(groups: list[Group], setting: Setting) -> Group:
    """(r - mean) / (std + eps); the std is the group's, or the batch's."""
    batch = _variance(_joined(groups), setting) if setting.get("std of") == "the batch" else None
    found: Group = {}
    for group in groups:
        variance = _variance(group, setting) if batch is None else batch
        found |= group if _alone(group, setting) else _over(_centred(group, setting), variance, setting)
    return found


def _dr_grpo(groups: list[Group], setting: Setting) -> Group:
    return _joined([_centred(group, setting) for group in groups])


def _rloo(groups: list[Group], setting: Setting) -> Group:
    """The reward minus the mean of the others', which is n / (n - 1) (r - mean)."""
    found: Group = {}
    for group in groups:
        n = len(group)
        found |= {row: value * (n / (n - 1) if n > 1 else 1.0) for row, value in _centred(group, setting).items()}
    if setting["whitened"] == "no":
        return found
    mean, std = _mean(found) if found else 0.0, math.sqrt(_variance(found, {}))
    return {row: (value - mean) / (std + 1e-4) for row, value in found.items()}


def _gpg(groups: list[Group], setting: Setting) -> Group:
    """(N / rows with a reward other than 0) (r - mean)."""
    rewards = _joined(groups)
    scale = len(rewards) / max(1, sum(reward != 0 for reward in rewards.values()))
    return {row: scale * value for row, value in _dr_grpo(groups, setting).items()}


def _whitened(values: Group, setting: Setting) -> Group:
    mean = _mean(values) if values else 0.0
    moved = dict.fromkeys(values, 0.0) if _equal(values) else {row: value - mean for row, value in values.items()}
    return _over(moved, _variance(values, setting), setting)


def _reinforce_pp(groups: list[Group], setting: Setting) -> Group:
    return _whitened(_joined(groups), setting)


def _reinforce_pp_baseline(groups: list[Group], setting: Setting) -> Group:
    return _whitened(_dr_grpo(groups, setting), setting)


def _max_rl(groups: list[Group], setting: Setting) -> Group:
    """(r - mean) / (mean + eps); 0 for a group without reward."""
    found: Group = {}
    for group in groups:
        scale = _mean(group) + float(setting["eps"])
        found |= {row: value / scale if scale and _mean(group) else 0.0 for row, value in _centred(group, setting).items()}
    return found


def _ngrpo(groups: list[Group], setting: Setting) -> Group:
    """Mean and std over the rewards and one more, of 1."""
    found: Group = {}
    for group in groups:
        seen = {**group, -1: 1.0}
        moved = dict.fromkeys(group, 0.0) if _equal(seen) else {row: r - _mean(seen) for row, r in group.items()}
        found |= _over(moved, _variance(seen, setting), setting)
    return found


def _signed(positive: float, negative: float) -> Callable[[list[Group], Setting], Group]:
    """`positive` times the reward on hits, -`negative` on misses: no baseline."""
    return lambda groups, _: {row: positive * r if r > 0 else -negative for row, r in _joined(groups).items()}


def _best_of_k(groups: list[Group], setting: Setting) -> Group:
    """The best row of a group gets its lead over the second best, over the std; every other row 0."""
    found: Group = {}
    for group in groups:
        found |= dict.fromkeys(group, 0.0)
        if not _equal(group):
            second, best = sorted(group, key=lambda row: (group[row], -row))[-2:]
            found |= _over({best: group[best] - group[second]}, _variance(group, setting), setting)
    return found


def _gdpo(functions: list[list[Group]], setting: Setting) -> Group:
    """Each reward function's z-scores, summed, then whitened over the batch."""
    total: Group = {}
    inner = {**setting, "denominator": setting["each function's"]}
    for groups in functions:
        for row, value in _grpo(groups, inner).items():
            total[row] = total.get(row, 0.0) + value
    return _whitened(total, setting)


_GROUPWISE = {**_SINGLE, **_MISSING}
_GRPO = {**_DDOF, **_STD, "std of": ("the group", "the batch"), **_GROUPWISE, **_EQUAL}
FORMULAS: dict[str, Formula] = {
    "grpo": Formula(_grpo, _GRPO, "arXiv 2402.03300", closed_form="grpo"),
    "dr_grpo": Formula(_dr_grpo, _GROUPWISE, "arXiv 2503.20783", closed_form="dr_grpo"),
    "rloo": Formula(_rloo, {"whitened": ("no", "over the batch"), **_GROUPWISE}, "arXiv 2402.14740", closed_form="rloo"),
    "gpg": Formula(_gpg, _GROUPWISE, "arXiv 2504.02546", by_group=False),
    "reinforce_pp": Formula(
        _reinforce_pp, {**_DDOF, **_WHITEN, **_MISSING, **_EQUAL}, "arXiv 2501.03262", by_group=False, spreads=True
    ),
    "reinforce_pp_baseline": Formula(
        _reinforce_pp_baseline, {**_DDOF, **_WHITEN, **_GROUPWISE, **_EQUAL}, "arXiv 2501.03262", by_group=False, spreads=True
    ),
    "max_rl": Formula(_max_rl, {"eps": ("1e-6", "0", "1e-4"), **_MISSING}, "arXiv 2602.02710", closed_form="max_rl"),
    "ngrpo": Formula(_ngrpo, {**_DDOF, **_STD, **_MISSING, **_EQUAL}, "arXiv 2509.18851", closed_form="ngrpo"),
    "w_reinforce": Formula(_signed(0.1, 1.0), _MISSING, "arXiv 2506.01347", closed_form="w_reinforce"),
    "psr": Formula(_signed(1.0, 0.0), _MISSING, "arXiv 2506.01347"),
    "nsr": Formula(_signed(0.0, 1.0), _MISSING, "arXiv 2506.01347"),
    "best_of_k": Formula(_best_of_k, {**_DDOF, **_STD, **_MISSING, **_EQUAL}, "arXiv 2503.19595"),
    "dapo": Formula(_grpo, _GRPO, "arXiv 2503.14476: grpo, and groups of equal rewards are drawn anew"),
    "gdpo": Formula(
        _gdpo,
        {**_DDOF, **_WHITEN, "each function's": ("std + 1e-6", "std + 1e-4"), **_GROUPWISE, **_EQUAL},
        "arXiv 2601.05242",
        by_group=False,
        spreads=True,
        each_function=True,
    ),
}
