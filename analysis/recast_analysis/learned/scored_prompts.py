"""Scores of one model on its prompts, from a file of any format, checked value by value.

Axes: N prompts, L levels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_analysis.drawing.words import count_words
from recast_analysis.learned.candidate_scores import CandidateScores, Floats
from recast_analysis.learned.learned_error import LearnedError
from recast_analysis.learned.score_roles import Roles, find_roles
from recast_analysis.learned.score_rows import score_columns, score_rows
from recast_analysis.learned.score_values import (
    bare,
    id_of,
    item_of,
    list_at,
    logprobs_at,
    number_at,
    truth_at,
    whole_at,
    wrong,
)

_NUMBERS = 200_000_000  # scores of a file, all prompts together


@dataclass(frozen=True)
class ScoredPrompts:
    """What a file says of each prompt; None where it does not.

    Attributes:
        source: the file.
        id_N, user_N, target_N: as text; targets of a prompt joined by a line end.
        rank_N: of the target, infinite where it is not in the list.
        depth: ranks up to it are known; infinite where all are.
        logprob_NL: the target's log-probability by level, or of all levels in one column.
        candidates: scores of items; levels: scores of children on the way to the target.
        given: figures that the file brings ready-made, by name (of our own runs), NaN where a prompt has none.
        notes: what a reader must know.
    """

    source: str
    id_N: Sequence[str]
    user_N: Sequence[str] | None = None
    target_N: Sequence[str] | None = None
    rank_N: Floats | None = None
    depth: float = np.inf
    logprob_NL: Floats | None = None
    greedy_N: Floats | None = None
    entropy_N: Floats | None = None
    candidates: CandidateScores | None = None
    levels: tuple[CandidateScores, ...] = ()
    given: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.id_N)

    def take(self, index_M: NDArray[np.int64]) -> "ScoredPrompts":
        """Some prompts, in the order of `index_M`."""
        moved: dict[str, Any] = {
            "levels": tuple(level.take(index_M) for level in self.levels),
            "given": {name: value_N[index_M] for name, value_N in self.given.items()},
        }
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                moved[part.name] = value[index_M]
            elif isinstance(value, CandidateScores):
                moved[part.name] = value.take(index_M)
            elif part.name.endswith("_N") and value is not None:
                moved[part.name] = [value[place] for place in index_M]
        return replace(self, **moved)


def read_scores(path: Path, given: dict[str, str], beam: int | None, by_row: bool) -> ScoredPrompts:
    """The scores of a file.

    Args:
        given: columns by role, as `given_columns` reads them.
        beam: how many items a list holds, where ranks alone do not tell; deeper ranks do not count.
        by_row: rows are named by their place.

    Raises:
        LearnedError: a file, a column or a value that cannot be used, or an id that is there twice.
    """
    roles = find_roles(path, score_columns(path), given, by_row)
    rows = _Rows(path, roles, by_row)
    for place, row in score_rows(path, (name for names in roles.values() for name in names)):
        rows.add(place, row)
    return rows.whole(beam)


class _Rows:
    """Rows as they come in, each value as its role says it."""

    def __init__(self, path: Path, roles: Roles, by_row: bool) -> None:
        self._path, self._roles, self._by_row = path, roles, by_row
        self._found: dict[str, list[Any]] = {role: [] for role in (*roles, "size", "slot", "set", "listed")}
        self._place_of: dict[str, str] = {}
        self._scores: list[Floats] = []
        self._level_scores: list[list[Floats]] = []
        self._numbers = self._repeated = self._several = 0

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Take a row in. Raises LearnedError."""

        def value(role: str) -> tuple[Any, str]:
            (name,) = self._roles[role]
            return row.get(name), f"{self._path}: {place}, column {name}"

        self._add_id(place, row)
        readers = {"user": id_of, "greedy": truth_at, "entropy": number_at}
        for role, read in readers.items():
            if role in self._roles:
                self._found[role].append(read(*value(role)))
        if "rank" in self._roles:
            found, where = value("rank")
            if self._roles["rank"][0] not in row:
                raise LearnedError(f"{where}: missing; write null where the target is not in the beam")
            self._found["rank"].append(np.inf if found is None else float(whole_at(found, where, 1)))
        if "logprob" in self._roles:
            names = self._roles["logprob"]
            parts = [logprobs_at(row.get(name), f"{self._path}: {place}, column {name}") for name in names]
            self._found["logprob"].append([one for part in parts for one in part])
            self._same_levels("logprob", f"{self._path}: {place}, column {names[0]}")
        if "level_scores" in self._roles:
            self._add_levels(value("level_scores"), value("level_target"))
        if "target" in self._roles:
            listed = value("ranked") if "ranked" in self._roles else None
            self._add_list(value("target"), listed, value("scores") if "scores" in self._roles else None)

    def whole(self, beam: int | None) -> ScoredPrompts:
        """All rows together. Raises LearnedError where there are none."""
        if not self._place_of:
            raise LearnedError(f"{self._path}: holds no rows; write one a prompt")
        rank_N, depth = self._ranks(beam)
        candidates = self._candidates() if self._scores else None
        return ScoredPrompts(
            source=str(self._path),
            id_N=list(self._place_of),
            user_N=self._found.get("user"),
            target_N=self._found.get("target"),
            rank_N=rank_N,
            depth=depth,
            logprob_NL=self._floats("logprob"),
            greedy_N=self._floats("greedy"),
            entropy_N=self._floats("entropy"),
            candidates=candidates,
            levels=self._levels(),
            notes=tuple(self._notes(candidates)),
        )

    def _add_id(self, place: str, row: Mapping[str, Any]) -> None:
        where = f"{self._path}: {place}"
        names = () if self._by_row else self._roles["prompt"]
        parts = [id_of(row.get(name), f"{where}, column {name}") for name in names]
        own = "\n".join(parts) if parts else str(len(self._place_of))
        if own in self._place_of:
            raise LearnedError(
                f"{where}: prompt {own[:60]!r} is there already, at {self._place_of[own]}; give each an id of its own, "
                "several columns as --columns prompt=A+B, or --by-row where all files list the same prompts in the same order"
            )
        self._place_of[own] = place

    def _add_levels(self, scores: tuple[Any, str], target: tuple[Any, str]) -> None:
        levels = [_floats_at(level, scores[1]) for level in list_at(*scores)]
        slots = [whole_at(slot, target[1], 0) for slot in list_at(*target)]
        for level, slot in zip(levels, slots, strict=False):
            if slot >= len(level):
                raise wrong(slot, target[1], f"write a place among the {len(level)} scores of its level, from 0")
        if len(levels) != len(slots):
            raise LearnedError(f"{target[1]}: {len(slots)} levels, but {len(levels)} of scores; write one number a level")
        self._count(sum(map(len, levels)), scores[1])
        self._level_scores.append(levels)
        self._found["level_target"].append(slots)
        self._same_levels("level_target", target[1])

    def _same_levels(self, role: str, where: str) -> None:
        first, last = (len(self._found[role][at]) for at in (0, -1))
        if first != last:
            raise LearnedError(f"{where}: {count_words(last, 'level')}, but {first} in the first row; write as many in each")

    def _add_list(self, target: tuple[Any, str], ranked: tuple[Any, str] | None, scores: tuple[Any, str] | None) -> None:
        if ranked is None:
            self._add_place(target, scores)
            return
        wanted = _targets(*target)
        items = [_listed(item, ranked[1]) for item in list_at(*ranked)]
        self._found["target"].append("\n".join(sorted(wanted)))
        self._repeated += len(items) - len(set(items))
        slot = next((place for place, item in enumerate(items) if item in wanted), -1)
        rank = np.inf if slot < 0 else 1.0 + slot
        if scores is not None:
            values = _floats_at(*scores)
            if len(values) != len(items):
                raise LearnedError(f"{scores[1]}: {len(values)} scores of {len(items)} items; write one for each")
            self._several += len(wanted) > 1
            rivals = [place for place, item in enumerate(items) if item not in wanted]
            own = [place for place, item in enumerate(items) if item in wanted]
            slot = max(own, key=lambda place: values[place], default=-1)
            rank = np.inf if slot < 0 else 1.0 + float((values[rivals] >= values[slot]).sum())
            self._add_scores(values, slot, sum(map(_number, set(items))) % 2**64, scores[1])
        self._found["ranked"].append(rank)
        self._found["listed"].append(len(items))

    def _add_place(self, target: tuple[Any, str], scores: tuple[Any, str] | None) -> None:
        """Without a list of items the target is a place among the scores, or a name that only matches rows."""
        if scores is None:
            self._found["target"].append("\n".join(sorted(_targets(*target))))
            return
        values, slot = _floats_at(*scores), whole_at(*target, 0)
        if slot >= len(values):
            raise wrong(slot, target[1], f"write the target's place among the {len(values)} scores, from 0")
        self._found["target"].append(str(slot))
        self._add_scores(values, slot, len(values), scores[1])
        self._found["scores"].append(1.0 + float((values >= values[slot]).sum() - 1))
        self._found["listed"].append(len(values))

    def _add_scores(self, values: Floats, slot: int, number: int, where: str) -> None:
        self._count(len(values), where)
        self._scores.append(values)
        for role, one in (("size", len(values)), ("slot", slot), ("set", number)):
            self._found[role].append(one)

    def _count(self, numbers: int, where: str) -> None:
        self._numbers += numbers
        if self._numbers > _NUMBERS:
            raise LearnedError(f"{where}: over {_NUMBERS:,} scores in the file, the most that is read; take fewer prompts")

    def _ranks(self, beam: int | None) -> tuple[Floats | None, float]:
        """Ranks, and down to which they are known: the beam, else the longest list, else the largest rank that is there."""
        rank_N = next((self._floats(role) for role in ("rank", "ranked", "scores") if self._found.get(role)), None)
        if rank_N is None:
            return None, np.inf
        if self._found["listed"] and "rank" not in self._roles:
            depth = float(max(self._found["listed"]))
        else:
            known = rank_N[np.isfinite(rank_N)]
            depth = np.inf if len(known) == len(rank_N) else float(known.max(initial=0.0))
            depth = float(beam or depth)
        depth = min(depth, beam or np.inf)
        return np.where(rank_N <= depth, rank_N, np.inf), depth

    def _candidates(self) -> CandidateScores | None:
        size_N, slot_N = (np.array(self._found[role], dtype=np.int64) for role in ("size", "slot"))
        if self._several or (slot_N < 0).any():
            return None
        return CandidateScores(np.concatenate(self._scores), size_N, slot_N, np.array(self._found["set"], dtype=np.uint64))

    def _levels(self) -> tuple[CandidateScores, ...]:
        slots = self._found.get("level_target", [])
        return tuple(
            CandidateScores(
                np.concatenate([row[level] for row in self._level_scores]),
                size_N := np.array([len(row[level]) for row in self._level_scores], dtype=np.int64),
                np.array([row[level] for row in slots], dtype=np.int64),
                size_N.astype(np.uint64),
            )
            for level in range(len(slots[0]) if slots else 0)
        )

    def _floats(self, role: str) -> Floats | None:
        return np.array(self._found[role], dtype=np.float64) if self._found.get(role) else None

    def _notes(self, candidates: CandidateScores | None) -> Iterable[str]:
        if self._repeated:
            share = self._repeated / sum(self._found["listed"])
            yield f"{self._path}: {100 * share:.1f} % of the listed items stand in their list before; each keeps its place"
        if self._scores and candidates is None:
            missed = sum(slot < 0 for slot in self._found["slot"])
            why = f"{self._several} have several targets" if self._several else f"{missed} lack their target in the list"
            yield f"{self._path}: no temperature is fitted to the scores: of {len(self._place_of)} prompts {why}"


def _floats_at(value: Any, where: str) -> Floats:
    return np.array([number_at(one, where) for one in list_at(value, where)])


def _targets(value: Any, where: str) -> set[str]:
    if isinstance(value, list) or (isinstance(value, str) and value.startswith("[") and value.endswith("]")):
        return {item_of(one, where) for one in list_at(value, where)}
    return {item_of(value, where)}


def _listed(value: Any, where: str) -> str:
    """An item of a list; what a beam ended as may be no item, and is no hit."""
    if isinstance(value, str):
        return bare(value)
    if value is None or type(value) is int:
        return "" if value is None else str(value)
    raise wrong(value, where, "write an item as text or a whole number")


def _number(item: str) -> int:
    return int.from_bytes(blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
