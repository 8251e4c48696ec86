"""The clipped, KL-regularised loss of a batch, written out in plain Python with the choices that trainers make differently.

Axes: N rows, S tokens. A row whose advantage is 0 is dead: its group taught nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

CLIP_LOW, CLIP_HIGH, KL = 0.2, 0.28, 0.1
Table = Sequence[Sequence[float]]
SUM = "1 (a sum)"
CHOICES: dict[str, tuple[str, ...]] = {
    "denominator": ("tokens", "rows", "rows, each by its tokens", "rows x width", SUM),
    "dead rows": ("in the denominator", "out of the denominator"),
    "KL of dead rows": ("kept", "left out"),
    "clip": ("one side", "both sides (dual clip, 3)"),
    "KL estimator": ("k3", "k1", "k2"),
    "KL clamp": ("none", "log ratio to 20, estimate to 10"),
}


@dataclass(frozen=True)
class LossFormula:
    """The loss as a method of its own, so that advantages and losses are judged alike."""

    choices: Mapping[str, tuple[str, ...]]
    source: str = "arXiv 1707.06347, 2402.03300"
    since: int = 1
    only: None = None
    interchangeable: bool = False

    def covers(self, case: object) -> bool:
        """It says something of every batch."""
        return True

    def reference(self) -> dict[str, str]:
        return {name: options[0] for name, options in self.choices.items()}

    def settings(self) -> list[dict[str, str]]:
        """Every combination of choices, the reference first, those that differ from it the least before others."""
        found = [dict(zip(self.choices, options, strict=True)) for options in product(*self.choices.values())]
        return sorted(found, key=lambda setting: sum(setting[name] != self.reference()[name] for name in setting))


LOSS = LossFormula(CHOICES)


def loss(
    new_NS: Table, old_NS: Table, reference_NS: Table, advantages_N: Sequence[float], mask_NS: Table, setting: Mapping[str, str]
) -> float:
    """The loss from log-probabilities, advantages, and a mask of 0 and 1; at least one token counts."""
    keep_kl = setting["KL of dead rows"] == "kept"
    sums, counts, width = [], [], len(mask_NS[0])
    for new, old, reference, advantage, mask in zip(new_NS, old_NS, reference_NS, advantages_N, mask_NS, strict=True):
        losses = [
            _token(n, o, advantage, setting) + (KL * _kl(n, r, setting) if advantage or keep_kl else 0.0)
            for n, o, r, there in zip(new, old, reference, mask, strict=True)
            if there
        ]
        if setting["dead rows"] == "in the denominator" or advantage:
            counts.append(sum(map(bool, mask)))
        by_tokens = setting["denominator"] == "rows, each by its tokens"
        sums.append(math.fsum(losses) / (max(1, len(losses)) if by_tokens else 1))
    rows = sum(count > 0 for count in counts)
    below = {"tokens": sum(counts), "rows x width": len(counts) * width, SUM: 1}.get(setting["denominator"], rows)
    return math.fsum(sums) / max(1, below)


def _token(new: float, old: float, advantage: float, setting: Mapping[str, str]) -> float:
    ratio = math.exp(new - old)
    worse = max(-ratio * advantage, -min(max(ratio, 1 - CLIP_LOW), 1 + CLIP_HIGH) * advantage)
    return min(worse, -3 * advantage) if advantage < 0 and setting["clip"] != "one side" else worse


def _kl(new: float, reference: float, setting: Mapping[str, str]) -> float:
    gap = reference - new
    if setting["KL estimator"] != "k3":
        return -gap if setting["KL estimator"] == "k1" else gap * gap / 2
    if setting["KL clamp"] == "none":
        return math.exp(gap) - gap - 1
    gap = min(max(gap, -20.0), 20.0)
    return min(max(math.exp(gap) - gap - 1, -10.0), 10.0)
