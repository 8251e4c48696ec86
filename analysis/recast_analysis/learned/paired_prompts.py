"""Prompts of several score files side by side: matched by id, as text, or by their place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from recast_analysis.learned.learned_error import LearnedError
from recast_analysis.learned.scored_prompts import ScoredPrompts

_SHOWN = 3  # ids in a message


@dataclass(frozen=True)
class PairedPrompts:
    """The prompts that all files have, in the order of the first.

    Attributes:
        before, after, supervised: of the same prompts in the same order.
        unit_N: the user of each prompt, by number, or the prompt itself: what an interval counts.
        unmatched: how many prompts of each file have no partner, by its name.
    """

    before: ScoredPrompts
    after: ScoredPrompts
    supervised: ScoredPrompts | None
    unit_N: np.ndarray
    by_users: bool
    unmatched: dict[str, int]

    @property
    def units(self) -> int:
        return int(self.unit_N.max()) + 1


def pair(before: ScoredPrompts, after: ScoredPrompts, supervised: ScoredPrompts | None, by_row: bool) -> PairedPrompts:
    """Match prompts.

    Raises:
        LearnedError: fewer than two prompts or users in common, ids that differ only in how they are written, a prompt with
            other targets or users in another file, or, `by_row`, files of other lengths.
    """
    sides = [side for side in (before, after, supervised) if side is not None]
    if by_row and len({len(side) for side in sides}) > 1:
        lengths = ", ".join(f"{side.source}: {len(side):,}" for side in sides)
        raise LearnedError(f"by-row: the files have other numbers of rows ({lengths}); match by ids instead")
    places = [{name: place for place, name in enumerate(side.id_N)} for side in sides]
    shared = [name for name in before.id_N if all(name in place for place in places)]
    for other, place in zip(sides[1:], places[1:], strict=True):
        _check_writing(before, places[0], other, place)
    if not shared:
        others = "; ".join(f"{side.source}: {_some(side.id_N)}" for side in sides)
        raise LearnedError(f"prompts: none is in all files ({others}); name the column of ids with --columns prompt=COLUMN")
    taken = [side.take(np.array([place[name] for name in shared])) for side, place in zip(sides, places, strict=True)]
    for other in taken[1:]:
        _check_same(taken[0], other, "target", by_row)
        _check_same(taken[0], other, "user", by_row)
    user_N = next((side.user_N for side in taken if side.user_N is not None), None)
    unit_N = np.unique(np.array(shared if user_N is None else user_N, dtype=object), return_inverse=True)[1]
    if unit_N.max() < 1:
        raise LearnedError(f"prompts: {len(shared)} in all files, of one {'user' if user_N else 'prompt'}; two are the least")
    names = ("BEFORE", "AFTER", "SUPERVISED")
    unmatched = {name: len(side) - len(shared) for name, side in zip(names, sides, strict=False)}
    return PairedPrompts(taken[0], taken[1], taken[2] if supervised else None, unit_N, user_N is not None, unmatched)


def _check_writing(before: ScoredPrompts, own: dict[str, int], other: ScoredPrompts, there: dict[str, int]) -> None:
    """Ids that would be equal without blanks, zeros in front or ".0" behind are not merged: somebody must say what they are."""
    alone = {_simple(name): name for name in before.id_N if name not in there}
    for name in other.id_N:
        if name not in own and (twin := alone.get(_simple(name))) is not None:
            raise LearnedError(
                f"prompts: {twin!r} of {before.source} and {name!r} of {other.source} differ only in how they are written; "
                "write ids alike in all files"
            )


def _simple(name: str) -> str:
    return name.strip().casefold().removesuffix(".0").lstrip("0")


def _check_same(before: ScoredPrompts, other: ScoredPrompts, what: str, by_row: bool) -> None:
    ours, theirs = getattr(before, f"{what}_N"), getattr(other, f"{what}_N")
    if ours is None or theirs is None:
        return
    for name, one, two in zip(before.id_N, ours, theirs, strict=True):
        if one != two:
            fix = "sort both files alike" if by_row else f"give each {what} an id of its own with --columns prompt=A+B"
            raise LearnedError(
                f"prompt {name[:60]!r}: its {what} is {one[:60]!r} in {before.source} and {two[:60]!r} in {other.source}; {fix}"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(_shown(names[:_SHOWN]))


def _shown(names: Iterable[str]) -> list[str]:
    return [repr(name[:40]) for name in names]
