"""What the changes say in words, judged by a few figures that are named in advance.

No temperature of the whole distribution buys HR@1 (greedy hits where there are no ranks), the deepest HR@k, NDCG@10 (MRR where
lists are shorter), the log-likelihood at the fitted T, or the learned part of sampled Pass@1: they speak of learning. The
sharpened part speaks of sharpening, or entropy where that part is not known. Where first places rise and the deepest HR@k
falls, breadth was lost, and ranks count no longer as learning. Significant is a false discovery rate of 5 % over all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recast_analysis.learned.paired_changes import FEWEST, Change, change
from recast_analysis.learned.paired_prompts import PairedPrompts
from recast_analysis.learned.prompt_metrics import CUTS, PromptFigures
from recast_analysis.measures.power import LEVEL
from recast_analysis.measures.statistics import false_discovery

CALIBRATED, LEARNED, SHARPENED, ENTROPY = "calibrated_log_likelihood", "learned", "sharpened", "entropy"
HEADS = ("hr@1", "greedy")  # the first that is there is judged
NATS = (CALIBRATED, ENTROPY, "log_likelihood")  # and its levels
_TITLES = {
    "hr": "HR", "ndcg": "NDCG", "mrr": "MRR", CALIBRATED: "log-likelihood at the fitted T", "greedy": "greedy hits",
    "log_likelihood": "log-likelihood at T = 1", LEARNED: "learned part of sampled Pass@1",
    SHARPENED: "sharpened part of sampled Pass@1", "pass_at_1_sampled": "sampled Pass@1", ENTROPY: "entropy",
    "pass_at_1_sampled_at_start_entropy": "sampled Pass@1 at BEFORE's entropy",
}  # fmt: skip


@dataclass(frozen=True)
class LearnedVerdict:
    """The verdict.

    Attributes:
        label: "learned", "sharpened", "both", "lost breadth", "learned and lost breadth", "mixed", "worse", "nothing found" or
            "not judged".
        words: what was found, as sentences; the power; what the intervals do not hold.
        judged: adjusted p-value of each judged figure, None where too few users changed.
    """

    label: str
    words: list[str]
    judged: dict[str, float | None]


@dataclass(frozen=True)
class Changes:
    """All changes of a pair of files, and of a third one: AFTER against BEFORE, SUPERVISED against BEFORE, AFTER against it."""

    own: dict[str, Change]
    supervised: dict[str, Change]
    beyond: dict[str, Change]
    judged: list[str]
    level: float


def changes_of(paired: PairedPrompts, found: PromptFigures) -> Changes:
    """Changes of all figures; smallest effects are those that the verdict finds with 80 % power, or more."""
    judged = judged_names([figure.name for figure in found.figures])
    level = LEVEL / max(1, len(judged))
    own, supervised, beyond = {}, {}, {}
    for figure in found.figures:
        name, sides = figure.name, (figure.before_N, figure.after_N)
        own[name] = change(name, *sides, paired.unit_N, level)
        if figure.supervised_N is not None:
            supervised[name] = change(name, figure.before_N, figure.supervised_N, paired.unit_N, level)
            beyond[name] = change(name, figure.supervised_N, figure.after_N, paired.unit_N, level)
    known = [{name: one for name, one in some.items() if one is not None} for some in (own, supervised, beyond)]
    return Changes(known[0], known[1], known[2], [name for name in judged if name in known[0]], level)


def judged_names(names: Sequence[str]) -> list[str]:
    """The figures that a verdict is made of, of those that are there."""
    deepest = next((f"hr@{k}" for k in reversed(CUTS[1:]) if f"hr@{k}" in names), None)
    spread = SHARPENED if SHARPENED in names else ENTROPY
    head = next((name for name in HEADS if name in names), None)
    wanted = (head, deepest, ranking(names), CALIBRATED, LEARNED, spread)
    return [name for name in wanted if name in names and name is not None]


def ranking(names: Sequence[str]) -> str | None:
    """The figure of the whole ranking."""
    return next((name for name in names if name.startswith("ndcg@")), None) or next(
        (name for name in names if name.startswith("mrr")), None
    )


def verdict_of(changes: Changes) -> LearnedVerdict:
    """The label and its sentences."""
    own = changes.own
    adjusted = dict(zip(changes.judged, false_discovery([own[name].p for name in changes.judged]), strict=True))
    moved = {name: _sign(own[name]) if p is not None and p < LEVEL else 0 for name, p in adjusted.items()}
    label = _label(moved, list(own))
    still = [title(name) for name, sign in moved.items() if not sign and adjusted[name] is not None]
    words = [_finding(label, moved, own, ", ".join(still)), *_few(adjusted), _power(own, moved)]
    words += _of_supervision(changes)
    return LearnedVerdict(label, [one for one in words if one], adjusted)


def title(name: str) -> str:
    """A figure's name in words."""
    if name in _TITLES:
        return _TITLES[name]
    if name.startswith("log_likelihood_level_"):
        return f"log-likelihood of level {name.rpartition('_')[2]}"
    stem, _, depth = name.partition("@")
    return f"{_TITLES.get(stem, stem)}@{depth}" if depth else _TITLES.get(stem, stem)


def number(name: str, value: float) -> str:
    """A figure, in nats or as a share, with its sign."""
    return f"{digits(value, '+')}{' nats' if name.startswith(NATS) else ''}"


def digits(value: float, sign: str = "") -> str:
    """Four decimals, or two digits of what is smaller."""
    return format(value, f"{sign}.4f" if abs(value) >= 5e-5 or not value else f"{sign}.2g")


def interval(one: Change) -> str:
    """A difference with its interval."""
    ends = one.difference
    return f"{digits(ends.value, '+')} [{digits(ends.above, '+')}, {digits(ends.below, '+')}]"


def said(one: Change) -> str:
    """A change with its interval."""
    return f"{title(one.name)} {interval(one)}{' nats' if one.name.startswith(NATS) else ''}"


def _sign(one: Change) -> int:
    return int(np.sign(one.difference.value))


def _label(moved: Mapping[str, int], names: Sequence[str]) -> str:
    deepest = next((name for name in moved if name.startswith("hr@") and name not in HEADS), None)
    order = ranking(names)
    head = [moved.get(name, 0) for name in (*HEADS, order) if name is not None]
    breadth = deepest is not None and moved[deepest] < 0 and max(head, default=0) > 0
    counted = (CALIBRATED, LEARNED) if breadth else tuple(name for name in moved if name not in (SHARPENED, ENTROPY))
    evidence = [moved[name] for name in counted if name in moved]
    up, down = 1 in evidence, -1 in evidence
    sharper = moved.get(SHARPENED, 0) > 0 or moved.get(ENTROPY, 0) < 0
    if not moved:
        return "not judged"
    if breadth:
        return "learned and lost breadth" if up and not down else "lost breadth"
    if up and down:
        return "mixed"
    if up:
        return "both" if sharper else "learned"
    if down:
        return "worse"
    return "sharpened" if sharper else "nothing found"


def _finding(label: str, moved: Mapping[str, int], own: Mapping[str, Change], still: str) -> str:
    rose = ", ".join(said(own[name]) for name, sign in moved.items() if sign > 0 and name not in (SHARPENED, ENTROPY))
    fell = ", ".join(said(own[name]) for name, sign in moved.items() if sign < 0 and name not in (SHARPENED, ENTROPY))
    sharp = ", ".join(said(own[name]) for name in (SHARPENED, ENTROPY) if moved.get(name))
    return {
        "learned": f"AFTER learned: {rose}. No temperature buys that.",
        "both": f"AFTER learned, and it is sharper. Learned: {rose}. Sharper: {sharp}.",
        "sharpened": f"AFTER is sharper, and nothing shows that it learned: {sharp}."
        + (f" Not told from 0: {still}." if still else ""),
        "lost breadth": f"AFTER lost breadth: {rose}, but {fell}. First places were bought with the rest of the list: that is "
        "sharpening, not learning.",
        "learned and lost breadth": f"AFTER learned, and lost breadth: {rose}, but {fell}.",
        "mixed": f"The figures disagree: {rose}, but {fell}. AFTER is better at one thing and worse at another.",
        "worse": f"AFTER is worse: {fell or sharp}."
        + (f" Up: {rose}." if rose else "")
        + (f" {sharp}." if fell and sharp else ""),
        "not judged": "Not judged: a temperature may have moved every figure that is there. It takes ranks, greedy hits, or "
        "the scores of all candidates.",
        "nothing found": f"Nothing found: no change of {still} is told from 0."
        if still
        else "Nothing found: next to nothing changed.",
    }[label]


def _few(adjusted: Mapping[str, float | None]) -> list[str]:
    few = [title(name) for name, p in adjusted.items() if p is None]
    return [f"Not judged, since fewer than {FEWEST} users or prompts changed: {', '.join(few)}."] if few else []


def _power(own: Mapping[str, Change], moved: Mapping[str, int]) -> str:
    parts = []
    for name in moved:
        seen = own[name].smallest_effect
        if seen is not None and name not in (HEADS[0], ENTROPY):
            share = f" ({100 * seen / own[name].before:.0f} % of BEFORE's)" if own[name].before > 0 else ""
            parts.append(f"{title(name)} {number(name, seen).replace('+', '±')}{share}")
    return f"With 80 % power so many prompts would have shown: {', '.join(parts)}." if parts else ""


def _of_supervision(changes: Changes) -> list[str]:
    names = [name for name in changes.judged if name in changes.beyond and name in (CALIBRATED, ranking(list(changes.own)))]
    found = []
    for name in names:
        gained, beyond = changes.supervised[name], changes.beyond[name]
        where = {1: "AFTER stands above it", -1: "AFTER stands below it", 0: "AFTER is not told from it"}[beyond.direction]
        found.append(
            f"Continued supervision: {said(gained)} from BEFORE; {where}, {said(beyond).removeprefix(title(name)).strip()}."
        )
    return found
