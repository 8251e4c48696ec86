"""The inputs on which targets are asked: rewards with group ids, or log-probabilities, and simpler batches of each."""

import random
import uuid
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recast_analysis.conform.advantage_formulas import Formula, Rewards, Setting, advantages, rounding, slack
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
        lacking = any(reward is None or (self.functions and None in reward) for reward in self.rewards)  # type: ignore[operator]
        lone = lacking or any(self.ids.count(name) == 1 for name in set(self.ids))
        gone = ("missing reward",) * (not lacking) + ("one row",) * (not lone) + ("equal rewards",)
        return {name: option for name, option in setting.items() if name not in gone}

    def expected(self, formula: Formula, setting: Setting) -> list[float]:
        return advantages(formula, self.rewards, self.ids, setting)

    def tolerance(self, wanted: Sequence[float], setting: Setting) -> list[float]:
        rounded = slack(self.rewards, self.ids, setting) if setting.get("equal rewards", "0") != "0" else [0.0] * len(wanted)
        relative, absolute = HALF if self.half else RELATIVE, ABSOLUTE + rounding(self.rewards)
        return [relative * abs(one) + absolute + more for one, more in zip(wanted, rounded, strict=True)]

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
            if (rounder := _float32(round(reward, 1))) != reward:
                yield rounder


def reward_cases() -> list[Case]:
    """The golden batches. Rewards are float32 numbers, so that every reader holds the same ones."""
    graded = [0.5, -1.25, 2.0, 0.0, 0.75, 0.75, -0.5, 3.0]
    binary = [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    by_four, order = [row // 4 for row in range(12)], random.Random(1).sample(range(12), 12)
    keys = [str(uuid.UUID(int=1000003 * (7 - row // 4))) for row in range(12)]
    large = [40000, 40000, 0, 20000, 1000, 1000, 1001, 1001]
    equal = [0.1] * 7 + [0.7] * 8 + [-0.3] * 6
    wide = [1.0 if row in (5, 20, 21) else 0.0 for row in range(32)]
    cases = [
        Case("binary", "one, two and three hits of four", binary, by_four),
        Case("graded", "real rewards, some negative", graded, [0, 0, 0, 0, 1, 1, 1, 1], _SIGN),
        Case("all zero", "a dead group beside a live one", [0, 0, 0, 0, 1, 0, 0, 0], [0] * 4 + [1] * 4),
        Case("all correct", "a solved group beside a live one", [1, 1, 1, 1, 1, 0, 0, 0], [0] * 4 + [1] * 4),
        Case("nothing to learn", "every group is dead", [0] * 8, [0] * 4 + [1] * 4),
        Case("zero variance", "equal rewards that no float holds", equal, [0] * 7 + [1] * 8 + [2] * 6, _SIGN),
        Case("small spread", "rewards that differ by 1e-4", [0, 1e-4, 2e-4, 0, 1, 0, 0, 0], [0] * 4 + [1] * 4),
        Case("small batch", "and no other rewards", [0, 1e-4, 2e-4, 0, 1e-4, 0, 0, 0], [0] * 4 + [1] * 4),
        Case("large offset", "rewards far from 0", [1000, 1000, 1001, 1001, -500, -500, -500, -502], [0] * 4 + [1] * 4, _SIGN),
        Case("groups of two", "two rows a group", [1, 0, 0, 0, 0.5, 0.25], [0, 0, 1, 1, 2, 2]),
        Case("one group", "a batch of one group", [1, 0, 0.5, 0], [3, 3, 3, 3]),
        Case("large group", "three hits of 32", wide, [0] * 32),
        Case("ragged", "groups of two, three and five", [1, 0, 0, 0, 1, 0.5, 0, 0, 1, 1], [0, 0, 1, 1, 1, 2, 2, 2, 2, 2]),
        Case("one valid row", "groups of one row", [1, 1, 0, 0, 1, 0.5], [0, 1, 1, 1, 1, 2], "one row"),
        Case(
            "over ranks",
            "half of each group on each of two ranks",
            [binary[row] for row in _RANKS],
            [row // 4 for row in _RANKS],
        ),
        Case("shuffled", "rows in any order", [graded[row % 8] for row in order], [by_four[row] for row in order], _SIGN),
        Case("uuid ids", "text ids whose order is not the rows'", binary, keys),
        Case("sparse ids", "whole numbers with gaps, out of order", binary, [1000003] * 4 + [7] * 4 + [42] * 4),
        Case(
            "hashed ids", "whole numbers of 63 bits, one negative", binary, [2**62 + 11] * 4 + [-(2**61)] * 4 + [2**62 - 1] * 4
        ),
        Case("digit ids", "texts that are one number and two ids", binary, ["7"] * 4 + ["07"] * 4 + ["007"] * 4),
        Case("missing reward", "None for some rows", [1, 0, None, 0, None, 1, 0, 0], [0] * 4 + [1] * 4, "missing reward"),
        Case("group without reward", "None for a whole group", [None] * 4 + [1, 0, 0, 0], [0] * 4 + [1] * 4, "missing reward"),
        Case("functions", "two reward functions", [[1, 0.5], [0, 1], [0, 0], [1, 0]] * 2, [0] * 4 + [1] * 4),
        Case(
            "functions, missing",
            "two reward functions of which one, or both, say None",
            [[1, None], [0, 1], [None, None], [None, 0.5], [1, 0], [0, 0], [0, 1], [0, None]],
            [0] * 4 + [1] * 4,
            "missing reward",
        ),
        Case("float16", "sums and squares beyond float16", large, [0] * 4 + [1] * 4, half=True),
    ]
    return [replace(case, rewards=[_float32(reward) for reward in case.rewards]) for case in cases]


_SIGN = "rewards below 0"
_RANKS = [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]


def _float32(reward: Any) -> Any:
    if isinstance(reward, Sequence):
        return [_float32(one) for one in reward]
    return None if reward is None else float(np.float32(reward))


def random_case(seed: int) -> Case:
    """A small batch of live groups: binary or graded rewards, ragged, rows in any order, ids of any kind."""
    draw = random.Random(seed)
    pool = draw.choice([(0.0, 1.0), (0.0, 0.0, 0.0, 1.0), (-1.0, 1.0), (0.0, 0.25, 0.5, 1.0), (-2.0, 0.5, 3.0)])
    sizes = [draw.randint(2, 6) for _ in range(draw.randint(1, 5))]
    name = draw.choice([int, str, lambda p: 10 * p + 3, lambda p: f"prompt {p}", lambda p: str(uuid.UUID(int=p + seed))])
    rows = [(draw.choice(pool), name(p)) for p, size in enumerate(sizes) for _ in range(size)]
    draw.shuffle(rows)
    refusable = _SIGN if min(reward for reward, _ in rows) < 0 else ""
    return Case("random batches", f"seed {seed}", [reward for reward, _ in rows], [key for _, key in rows], refusable)


def loss_cases() -> list[LossCase]:
    """The golden batches of the loss, numbers rounded so that a reader can check them by hand."""
    draw = random.Random(4)

    def table(rows: int, low: float, high: float) -> list[list[float]]:
        return [[_float32(round(draw.uniform(low, high), 3)) for _ in range(3)] for _ in range(rows)]

    ones, old = [[1] * 3] * 4, table(4, -3, -1)
    near = [[_float32(round(one + draw.uniform(-0.1, 0.1), 3)) for one in row] for row in old]
    far = [[_float32(round(one + step, 3)) for one in row] for row, step in zip(old, (1.0, -1.0, 2.0, -2.0), strict=True)]
    advantages = [1.5, -0.5, -0.5, -0.5]
    dead = [1.5, -1.5, 0.0, 0.0]
    below = [[_float32(one - 12) for one in row] for row in old]
    above = [[_float32(one + 3) for one in row] for row in old]
    ragged = [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    return [
        LossCase("on policy", "three equal policies", old, old, old, advantages, ones),
        LossCase("near", "ratios within the clip", near, old, old, advantages, ones),
        LossCase("clipped", "ratios on both sides beyond the clip", far, old, old, advantages, ones),
        LossCase("far off", "ratios of 20 on rows to push down", above, old, old, advantages, ones),
        LossCase("reference", "a reference that differs", near, old, table(4, -3, -1), advantages, ones),
        LossCase("far reference", "a reference 12 nats away", below, below, old, advantages, ones),
        LossCase("dead rows", "half of the rows have advantage 0", near, old, old, dead, ones),
        LossCase("KL of dead rows", "and the reference differs", near, old, table(4, -3, -1), dead, ones),
        LossCase("ragged", "rows of one, two and three tokens", near, old, old, advantages, ragged, "mask"),
        LossCase("ragged, dead rows", "and some of them dead", near, old, table(4, -3, -1), dead, ragged, "mask"),
    ]


def random_loss_case(seed: int) -> LossCase:
    draw = random.Random(seed)
    rows, width = draw.randint(1, 4), draw.randint(1, 3)

    def near(low: float, high: float) -> list[list[float]]:
        return [[_float32(draw.uniform(low, high)) for _ in range(width)] for _ in range(rows)]

    numbers = [draw.choice([1.0, -1.0, 0.5, 0.0]) for _ in range(rows)]
    return LossCase("random batches", f"seed {seed}", near(-3, 0), near(-3, 0), near(-3, 0), numbers, [[1] * width] * rows)
