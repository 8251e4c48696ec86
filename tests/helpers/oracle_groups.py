"""One group of the constructors' oracle, and what its constructors are written with: statistics, picks, repairs."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Group:
    """One prompt. `live` are the rows that count; `numbers` holds the kept rows, a list of one number or of one a level."""

    reward: list[float]
    live: list[int]
    score: list[float] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    codes: list[list[int]] = field(default_factory=list)
    entropy: list[list[float]] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)
    has_anchor: bool = False
    anchor_codes: list[int] = field(default_factory=list)
    anchor_logprob: float = math.nan
    anchor_reference: float = math.nan
    anchor_levels: list[float] = field(default_factory=list)
    baseline: float = math.nan
    levels: int = 0
    slot: int = -1
    positive: int = -1
    negative: int = -1
    redraw: bool = False
    weight: float | None = None
    numbers: dict[int, list[float]] = field(default_factory=dict)

    def hits(self, config: Any) -> list[int]:
        return [g for g in self.live if self.reward[g] > config.hit_above]

    def misses(self, config: Any) -> list[int]:
        return [g for g in self.live if not self.reward[g] > config.hit_above]

    def sampled(self) -> list[int]:
        return [g for g in self.live if g != self.slot]

    def rewards(self) -> dict[int, float]:
        return {g: self.reward[g] for g in self.live}

    def append(self) -> None:
        """Room for an anchor behind the last row."""
        self.reward = [*self.reward, 0.0]
        self.score = [*self.score, 0.0] if self.score else []
        self.codes = [*self.codes, [-1] * self.levels] if self.codes else []

    def place(self, slot: int, config: Any) -> None:
        """The anchor in a row: it is the ground truth."""
        self.slot, self.reward[slot] = slot, config.anchor_reward
        self.live = sorted({*self.live, slot})
        if self.score:
            self.score[slot] = 1.0
        if self.codes:
            self.codes[slot] = self.anchor_codes

    def keep(self, numbers: dict[int, float]) -> None:
        """One number a row, on all the rows that are given."""
        self.numbers = {g: [number] for g, number in numbers.items()}

    def drop_zeros(self) -> None:
        self.numbers = {g: row for g, row in self.numbers.items() if any(row)}


def shaped(pi: float, gamma: float) -> float:
    """The derivative of pi / (pi + gamma) in log pi: pi times gamma / (pi + gamma)^2."""
    return pi * gamma / (pi + gamma) ** 2


# statistics


def average(values: Iterable[float]) -> float:
    """The mean, rounded once for the sum and once for the division."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def spread(values: Sequence[float], ddof: int) -> float:
    """The standard deviation: 0 where the values agree, whatever the rounding, or are too few."""
    if len(set(values)) < 2:
        return 0.0
    mean = average(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - ddof))


def minus_mean(values: dict[int, float]) -> dict[int, float]:
    """0 where the values agree, whatever the rounding."""
    mean = average(values.values())
    return dict.fromkeys(values, 0.0) if len(set(values.values())) < 2 else {g: v - mean for g, v in values.items()}


def z_scores(values: dict[int, float], config: Any) -> dict[int, float]:
    """GRPO's numbers: 0 where the values do not vary; a lone row by `singleton`."""
    if len(values) == 1 and config.singleton == "raw":
        return dict(values)
    std = spread(list(values.values()), config.std_ddof)
    return {g: d / (std + config.std_eps) for g, d in minus_mean(values).items()}


# picking rows


def in_order(group: Group, rows: Iterable[int], key: Callable[[int], float], config: Any) -> list[int]:
    """Rows from the highest key on; ties by the config's rule, then the first row."""
    likely = config.tie_rule == "highest_logprob"
    return sorted(rows, key=lambda g: (-key(g), -group.logprob[g] if likely else 0.0, g))


def best_hit(group: Group, config: Any) -> int:
    return next(iter(in_order(group, group.hits(config), lambda g: group.reward[g], config)), -1)


def hardest_misses(group: Group, config: Any, count: int, without: int = -1) -> list[int]:
    rows = [g for g in group.misses(config) if g != without]
    return in_order(group, rows, lambda g: group.score[g], config)[:count]


def empty_row(group: Group) -> int:
    """The first row that holds no valid rollout."""
    return next((g for g in range(len(group.reward)) if g not in group.live), -1)


def repair(group: Group, config: Any) -> None:
    """ReCast's: only without a hit; an empty row costs nothing, else the lowest score goes."""
    if group.has_anchor and not group.hits(config):
        slot = empty_row(group)
        if slot < 0:
            slot = in_order(group, group.live, lambda g: -group.score[g], config)[0]
        group.place(slot, config)


def supervise(group: Group, config: Any) -> None:
    """An anchor in every group: an empty row, else a hit, else the lowest score."""
    if not group.has_anchor:
        return
    slot, hits = empty_row(group), group.hits(config)
    if slot < 0:
        slot = in_order(group, hits or group.live, (lambda _: 0.0) if hits else (lambda g: -group.score[g]), config)[0]
    group.place(slot, config)


def inject_last(group: Group, config: Any) -> None:
    if group.has_anchor:
        group.place(len(group.reward) - 1, config)


def pair(group: Group, config: Any, positive: int, negative: int) -> None:
    group.positive, group.negative = positive, negative if config.w_minus else -1
    numbers = {positive: config.w_plus, negative: -config.w_minus}
    group.keep({g: number for g, number in numbers.items() if g >= 0 and number})


def boundary(group: Group, config: Any) -> None:
    """The best hit against the hardest miss; nothing where one of them is missing."""
    positive, negative = best_hit(group, config), next(iter(hardest_misses(group, config, 1)), -1)
    if positive >= 0 and negative >= 0:
        pair(group, config, positive, negative)


def rescue(group: Group, config: Any) -> None:
    """The anchor alone where nothing was hit, blind to scores."""
    if group.has_anchor and not group.hits(config):
        slot = empty_row(group)
        group.place(slot if slot >= 0 else in_order(group, group.live, lambda _: 0.0, config)[0], config)
        group.positive, group.negative = group.slot, -1
        group.keep({group.slot: config.w_anchor})
