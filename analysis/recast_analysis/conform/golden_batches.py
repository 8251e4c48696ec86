"""The batches of the golden vectors by version, and random ones."""

import random
import uuid
from dataclasses import replace

from recast_analysis.conform.cases import Case, LossCase, float32

_SIGN, _MISSING = "rewards below 0", "missing reward"
_RANKS = [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]


def reward_cases(version: int | None = None) -> list[Case]:
    """The golden batches, all of them or those that a version brought.

    Rewards are float32 numbers, so that every reader holds the same ones.
    """
    cases = [case for number, brought in _BROUGHT.items() if version in (None, number) for case in brought()]
    return [replace(case, rewards=[float32(reward) for reward in case.rewards]) for case in cases]


def _first_cases() -> list[Case]:
    graded = [0.5, -1.25, 2.0, 0.0, 0.75, 0.75, -0.5, 3.0]
    binary = [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    by_four, order = [row // 4 for row in range(12)], random.Random(1).sample(range(12), 12)
    keys = [str(uuid.UUID(int=1000003 * (7 - row // 4))) for row in range(12)]
    large = [40000, 40000, 0, 20000, 1000, 1000, 1001, 1001]
    equal = [0.1] * 7 + [0.7] * 8 + [-0.3] * 6
    wide = [1.0 if row in (5, 20, 21) else 0.0 for row in range(32)]
    return [
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


def _second_cases() -> list[Case]:
    keys = [str(uuid.UUID(int=1000003 * (7 - pair))) for pair in (0, 1, 2, 1, 0, 2)]
    wide = [float(row < hits) for hits in (0, 1, 4, 7, 8) for row in range(8)]
    nine, ten = [0.5, -1.25, 2, 0, 0.75, -0.5, 3, 2.75, 1], [0.1, 0.2, 0.3, 0.4, 5, -0.1, -0.2, -0.3, 0.6, 0]
    three, equal = [0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    few = [1, None, 0, 0, None, 0, None, 1, 0, 0.5, 1, None]
    shares = [0.02, 0.4, 0.4, 0.1, 1e-3, 2e-3, 0, 1e-3, 0.9, 0.95, 1, 0.99]
    ends, close = [0] * 4 + [1] * 4 + [0] * 4 + [1, 0, 0, 1], [1, 0] * 4 + [0, 1] * 4 + [1, 0, 0] * 2 + [1, 0]
    return [
        Case("pairs", "groups of two: one hit, none, two", [1, 0, 0, 0, 1, 1, 0, 1], _groups_of(2, 8)),
        Case("graded pairs", "real rewards in groups of two", [0.5, -1.25, 2, 2, 0, 1e-4, -0.5, 3], _groups_of(2, 8), _SIGN),
        Case("pairs apart", "groups of two, their rows apart, text ids", [1, 0, 0, 0, 0.25, 0.75], keys),
        Case("half a pair", "None for a row of a pair, and for both", [1, None, 0, 1, None, None], _groups_of(2, 6), _MISSING),
        Case("groups of three", "none, one, two and three hits of three", three, _groups_of(3, 12)),
        Case("groups of eight", "none, one, four, seven and eight hits of eight", wide, _groups_of(8, 40)),
        Case("wide and graded", "real rewards in groups of nine and ten", nine + ten, [0] * 9 + [1] * 10, _SIGN),
        Case("four of six", "None for two rows of six", few, _groups_of(6, 12), _MISSING),
        Case("shares", "probabilities, small and near 1", shares, _groups_of(4, 12)),
        Case("equal means", "live groups that all have one hit of four", equal, _groups_of(4, 12)),
        Case("means at both ends", "hit rates 0, 1 and one half", ends, _groups_of(4, 16)),
        Case("means close together", "hit rates of one half and less", close, _groups_of(8, 24)),
    ]


def _groups_of(size: int, rows: int) -> list[int]:
    return [row // size for row in range(rows)]


_BROUGHT = {1: _first_cases, 2: _second_cases}


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
        return [[float32(round(draw.uniform(low, high), 3)) for _ in range(3)] for _ in range(rows)]

    ones, old = [[1] * 3] * 4, table(4, -3, -1)
    near = [[float32(round(one + draw.uniform(-0.1, 0.1), 3)) for one in row] for row in old]
    far = [[float32(round(one + step, 3)) for one in row] for row, step in zip(old, (1.0, -1.0, 2.0, -2.0), strict=True)]
    advantages = [1.5, -0.5, -0.5, -0.5]
    dead = [1.5, -1.5, 0.0, 0.0]
    below = [[float32(one - 12) for one in row] for row in old]
    above = [[float32(one + 3) for one in row] for row in old]
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
        return [[float32(draw.uniform(low, high)) for _ in range(width)] for _ in range(rows)]

    numbers = [draw.choice([1.0, -1.0, 0.5, 0.0]) for _ in range(rows)]
    return LossCase("random batches", f"seed {seed}", near(-3, 0), near(-3, 0), near(-3, 0), numbers, [[1] * width] * rows)
