"""What a formula for advantages is: its numbers under a setting, its choices by name, the batches that it says something of.

A setting says how the published choices are made; the first option of each is the reference. None is a missing reward.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

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
EQUAL, NAN_ALONE = "equal rewards", "NaN for itself"
NOISE = 0.1  # more than this is no rounding error any more but a signal where there is none
DDOF_CHOICE, STD_CHOICE = {"ddof": ("1", "0")}, {"denominator": tuple(DENOMINATORS)}
_ONE_ROW_CHOICE = {"one row": ("0", "its reward")}
MISSING_CHOICE = {"missing reward": ("left out", "counts as 0", "NaN for all that it is compared with")}
MISSING_BY_ROW_CHOICE = {"missing reward": (*MISSING_CHOICE["missing reward"], NAN_ALONE)}
EQUAL_CHOICE = {EQUAL: ("0", "0 up to float32 rounding over the denominator")}
GROUP_CHOICES = {**_ONE_ROW_CHOICE, **MISSING_CHOICE}
GRPO_CHOICES = {**DDOF_CHOICE, **STD_CHOICE, "std of": ("the group", "the batch"), **GROUP_CHOICES, **EQUAL_CHOICE}


@dataclass(frozen=True)
class Formula:
    """A method: its numbers under a setting, the choices that it leaves open, and where it is published.

    Attributes:
        by_group: a group's numbers depend on its own rewards alone.
        spreads: a NaN reaches the whole batch, not its group alone.
        each_function: it is given the groups of each reward function, not those of their sum.
        closed_form: its name in `recast_sim.closed_forms`, and parameters of it beside ddof.
        since: the version of the golden vectors that brought it.
        only: which batches it says something of, in words, and whether a batch is one; None for all.
        interchangeable: rows of equal reward may swap their numbers within a group: which of them is kept is left open.
    """

    numbers: Callable[..., Group]
    choices: Mapping[str, tuple[str, ...]]
    source: str
    by_group: bool = True
    spreads: bool = False
    each_function: bool = False
    closed_form: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    since: int = 1
    only: tuple[str, Callable[[Rewards, Sequence[Hashable]], bool]] | None = None
    interchangeable: bool = False

    def covers(self, case: Any) -> bool:
        """It says something of this batch."""
        return self.only is None or self.only[1](case.rewards, case.ids)

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
        found = formula.numbers([grouped(column, ids) for column in _columns(rewards)], setting)
    else:
        found = formula.numbers(grouped([total_of(reward) for reward in rewards], ids), setting)
    spoilt = _spoilt(formula, given, ids, setting) if spreads else set()
    return [math.nan if row in spoilt else found.get(row, 0.0) for row in range(len(rewards))]


def _spoilt(formula: Formula, rewards: Rewards, ids: Sequence[Hashable], setting: Setting) -> set[int]:
    """Rows whose numbers a NaN reward reaches."""
    lacking = [reward is None or (isinstance(reward, Sequence) and None in reward) for reward in rewards]
    if setting["missing reward"] == NAN_ALONE:
        return {row for row, lacks in enumerate(lacking) if lacks}
    names = {name for name, lacks in zip(ids, lacking, strict=True) if lacks}
    return {row for row, name in enumerate(ids) if name in names or (names and formula.spreads)}


def rounding(rewards: Rewards) -> float:
    """What float32 may be off in a reward, or in the mean of some."""
    return 8 * 2**-24 * max((abs(total) for reward in rewards if (total := total_of(reward)) is not None), default=0.0)


def slack(rewards: Rewards, ids: Sequence[Hashable], setting: Setting) -> list[float]:
    """What float32 rounding may leave of each row's number where all rewards of its group are equal, else 0."""
    totals = [total_of(reward) for reward in rewards]
    gain = 1 / DENOMINATORS[setting["denominator"]](0.0) if setting.get("denominator") in DENOMINATORS else 1.0
    found = [0.0] * len(rewards)
    for group in grouped(totals, ids):
        if all_equal(group):
            found = [min(NOISE, rounding([group[row]]) * gain) if row in group else old for row, old in enumerate(found)]
    return found


def _filled(reward: Reward | Sequence[Reward], value: float) -> Reward | Sequence[Reward]:
    if isinstance(reward, Sequence):
        return [value if one is None else one for one in reward]
    return value if reward is None else reward


def _columns(rewards: Rewards) -> list[list[Reward]]:
    rows = [reward if isinstance(reward, Sequence) else [reward] for reward in rewards]
    return [list(column) for column in zip(*rows, strict=True)]


def total_of(reward: Reward | Sequence[Reward]) -> Reward:
    """The sum of what the reward functions said; None where none of them said anything."""
    if not isinstance(reward, Sequence):
        return reward
    said = [one for one in reward if one is not None]
    return math.fsum(said) if said else None


def grouped(rewards: Sequence[Reward], ids: Sequence[Hashable]) -> list[Group]:
    groups: dict[Hashable, Group] = {}
    for row, (reward, name) in enumerate(zip(rewards, ids, strict=True)):
        if reward is not None:
            groups.setdefault(name, {})[row] = reward
    return list(groups.values())


def all_equal(group: Group) -> bool:
    return len(set(group.values())) < 2


def mean_of(group: Group) -> float:
    return math.fsum(group.values()) / len(group)


def variance_of(values: Group, setting: Setting) -> float:
    """0 where the values agree, whatever the rounding."""
    ddof = int(setting.get("ddof", "1"))
    if all_equal(values) or len(values) <= ddof:
        return 0.0
    mean = mean_of(values)
    return math.fsum((value - mean) ** 2 for value in values.values()) / (len(values) - ddof)


def centred(group: Group, setting: Setting) -> Group:
    if len(group) == 1 and setting.get("one row") == "its reward":
        return dict(group)
    return dict.fromkeys(group, 0.0) if all_equal(group) else {row: reward - mean_of(group) for row, reward in group.items()}


def joined(groups: list[Group]) -> Group:
    return {row: value for group in groups for row, value in group.items()}


def over_std(values: Group, variance: float, setting: Setting) -> Group:
    return {row: value / DENOMINATORS[setting["denominator"]](variance) for row, value in values.items()}


def stands_alone(group: Group, setting: Setting) -> bool:
    return len(group) == 1 and setting.get("one row") == "its reward"


def by_std(groups: list[Group], setting: Setting) -> Group:
    """(r - mean) / (std + eps); the std is the group's, or the batch's."""
    batch = variance_of(joined(groups), setting) if setting.get("std of") == "the batch" else None
    found: Group = {}
    for group in groups:
        variance = variance_of(group, setting) if batch is None else batch
        found |= group if stands_alone(group, setting) else over_std(centred(group, setting), variance, setting)
    return found
