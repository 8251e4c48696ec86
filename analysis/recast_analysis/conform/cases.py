"""What a batch is that targets are asked about: rewards with group ids, or log-probabilities, and simpler batches of each."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from recast_analysis.conform.formula import Formula, Rewards, Setting, advantages, rounding, slack, total_of
from recast_analysis.conform.loss_formulas import LossFormula, Table, loss

RELATIVE, ABSOLUTE = 3e-5, 2e-6  # what float32 may be off
HALF = 4e-3  # and float16


@dataclass(frozen=True)
class Case:
    """A batch of rewards: one a row or one a row and reward function, None where missing, and the group of each row.

    Attributes:
        may_refuse: what it holds that a target may refuse with an error, as its name for the choice; "" for nothing.
    """

    name: str
    about: str
    rewards: Rewards
    ids: Sequence[Hashable]
    may_refuse: str = ""
    half: bool = False

    @property
    def functions(self) -> bool:
        """It has several reward functions."""
        return isinstance(self.rewards[0], Sequence)

    def arguments(self) -> tuple[Any, ...]:
        """Fresh copies for a target: a float32 (or float16) array with NaN where a reward is missing, and a list."""
        return np.array(self.rewards, dtype=float).astype(np.float16 if self.half else np.float32), list(self.ids)

    @property
    def answers(self) -> int:
        return len(self.ids)

    def relevant(self, setting: Setting) -> dict[str, str]:
        """The choices of a setting that this batch can tell apart at all."""
        return {name: option for name, option in setting.items() if name not in self._beside_the_point}

    @cached_property
    def _beside_the_point(self) -> tuple[str, ...]:
        lacking = any(reward is None or (self.functions and None in reward) for reward in self.rewards)  # type: ignore[operator]
        lone = lacking or any(self.ids.count(name) == 1 for name in set(self.ids))
        return ("missing reward",) * (not lacking) + ("one row",) * (not lone) + ("equal rewards",)

    def expected(self, formula: Formula, setting: Setting) -> list[float]:
        return advantages(formula, self.rewards, self.ids, setting)

    def tolerance(self, wanted: Sequence[float], setting: Setting) -> list[float]:
        rounded = slack(self.rewards, self.ids, setting) if setting.get("equal rewards", "0") != "0" else [0.0] * len(wanted)
        relative, absolute = HALF if self.half else RELATIVE, ABSOLUTE + rounding(self.rewards)
        return [relative * abs(one) + absolute + more for one, more in zip(wanted, rounded, strict=True)]

    def lined_up(self, values: Sequence[float], wanted: Sequence[float]) -> list[float]:
        """The values, those of equal rewards in a group handed round so that they come in the order of what is wanted."""
        classes: dict[Hashable, list[int]] = {}
        for row, (reward, name) in enumerate(zip(self.rewards, self.ids, strict=True)):
            classes.setdefault((name, total_of(reward)), []).append(row)
        found = list(values)
        for rows in classes.values():
            for row, value in zip(sorted(rows, key=wanted.__getitem__), sorted(values[row] for row in rows), strict=True):
                found[row] = value
        return found

    def smaller(self) -> Iterator["Case"]:
        """Simpler batches: without a group, without a row, with a simpler reward, with simpler ids."""
        for gone in dict.fromkeys(self.ids):
            yield self._without([row for row, name in enumerate(self.ids) if name == gone])
        for row in range(len(self.ids)):
            yield self._without([row])
        for row, reward in enumerate(self.rewards):
            for simple in _simpler(reward):
                rewards = [*self.rewards[:row], simple, *self.rewards[row + 1 :]]
                yield replace(self, rewards=rewards)
        order = {name: place for place, name in enumerate(dict.fromkeys(self.ids))}
        plain = [order[name] for name in self.ids]
        if plain != list(self.ids):
            yield replace(self, ids=plain)
        if (tidy := sorted(range(len(plain)), key=plain.__getitem__)) != list(range(len(plain))):
            yield replace(self, rewards=[self.rewards[row] for row in tidy], ids=[self.ids[row] for row in tidy])

    def shown(self) -> dict[str, Any]:
        return {"rewards": list(self.rewards), "ids": list(self.ids)} | ({"dtype": "float16"} if self.half else {})

    def _without(self, gone: Sequence[int]) -> "Case":
        kept = [row for row in range(len(self.ids)) if row not in gone]
        return replace(self, rewards=[self.rewards[row] for row in kept], ids=[self.ids[row] for row in kept])


@dataclass(frozen=True)
class LossCase:
    """A batch of log-probabilities under three policies (N, S), advantages (N,), and a mask (N, S) of the tokens that count."""

    name: str
    about: str
    new: Table
    old: Table
    reference: Table
    advantages: Sequence[float]
    mask: Table
    may_refuse: str = ""
    answers: int = 1
    functions: bool = False

    def arguments(self) -> tuple[Any, ...]:
        tables = (self.new, self.old, self.reference, self.advantages, self.mask)
        return tuple(np.array(table, dtype=np.float32) for table in tables)

    def relevant(self, setting: Setting) -> dict[str, str]:
        return dict(setting)

    def expected(self, formula: LossFormula, setting: Setting) -> list[float]:
        return [loss(self.new, self.old, self.reference, self.advantages, self.mask, setting)]

    def tolerance(self, wanted: Sequence[float], setting: Setting) -> list[float]:
        return [RELATIVE * abs(one) + ABSOLUTE for one in wanted]

    def smaller(self) -> Iterator["LossCase"]:
        """Simpler batches: without a row, without the last token, with a policy that equals another one."""
        for row in range(len(self.advantages)):
            kept = [other for other in range(len(self.advantages)) if other != row]
            yield self._over(lambda table, kept=kept: [table[other] for other in kept])
        yield replace(self, **{name: [row[:-1] for row in getattr(self, name)] for name in ("new", "old", "reference", "mask")})
        for name in ("old", "reference"):
            if getattr(self, name) != self.new:
                yield replace(self, **{name: self.new})

    def shown(self) -> dict[str, Any]:
        names = ("new", "old", "reference", "advantages", "mask")
        return {name: [list(row) if isinstance(row, Sequence) else row for row in getattr(self, name)] for name in names}

    def _over(self, change: Any) -> "LossCase":
        return replace(self, **{n: change(getattr(self, n)) for n in ("new", "old", "reference", "advantages", "mask")})


def _simpler(reward: Any) -> Iterator[Any]:
    """0, 1 and rounder numbers before the reward itself; a reward is never made missing."""
    if isinstance(reward, Sequence):
        for place, one in enumerate(reward):
            for simple in _simpler(one):
                yield [*reward[:place], simple, *reward[place + 1 :]]
    elif reward is None:
        yield from (0.0, 1.0)
    elif reward != 0:
        yield 0.0
        if reward != 1:
            yield 1.0
            if (rounder := float32(round(reward, 1))) != reward:
                yield rounder


def float32(reward: Any) -> Any:
    """The reward, or those of a row, as the nearest float32 number."""
    if isinstance(reward, Sequence):
        return [float32(one) for one in reward]
    return None if reward is None else float(np.float32(reward))
