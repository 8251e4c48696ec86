"""Semantic IDs as token ids: to tokens and back, and the scores of completions against a column of targets.

Axis letters: R rows, S SIDs of a completion, T targets of a prompt, L levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from recast_sim.catalog import Catalog
from recast_sim.signal import exact_hit, structural_score
from recast_train.adapters.trl.batch_checks import bad_row, checked_targets
from recast_train.model import Vocabulary, require
from recast_train.model.vocabulary import in_a_row

Sid = Sequence[int]
Parse = Callable[[Sequence[int]], Sequence[Sid]]


@dataclass(frozen=True)
class SidTokens:
    """Tokens of a catalog's SIDs: the token of code c of level l is offset[l] + c. `begin` closes every prompt.

    Raises:
        TrainError: another number of offsets than levels, or levels whose tokens overlap.
    """

    catalog: Catalog
    offset: Sequence[int]
    begin: Sequence[int] = ()

    def __post_init__(self) -> None:
        levels, given = self.catalog.levels, list(self.offset)
        require(len(given) == levels, "SidTokens.offset", given, f"must hold one token for each of {levels} levels")
        ranges = sorted(zip(given, self.catalog.sizes, strict=True))
        apart = all(start + size <= after for (start, size), (after, _) in pairwise(ranges))
        require(apart, "SidTokens.offset", given, f"overlap: the levels have {self.catalog.sizes} codes; number them apart")

    def has_codes(self, sid: Sid) -> bool:
        """Whether each code is one of its level."""
        sizes = self.catalog.sizes
        return len(sid) == len(sizes) and all(0 <= code < size for code, size in zip(sid, sizes, strict=True))

    def encode(self, sid: Sid) -> list[int]:
        """Token ids of an SID's codes."""
        return [start + code for start, code in zip(self.offset, sid, strict=True)]

    def parse(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """Every SID of a completion: codes of all levels in a row. It may be none of the catalog's."""
        levels, found = self.catalog.levels, []
        for at in range(len(tokens) - levels + 1):
            codes = [token - start for token, start in zip(tokens[at : at + levels], self.offset, strict=True)]
            if all(0 <= code < size for code, size in zip(codes, self.catalog.sizes, strict=True)):
                found.append(tuple(codes))
        return found

    def first(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """Codes of a completion's first SID and the place of its first token; codes of -1 where there is none."""
        levels = self.catalog.levels
        for at in range(len(tokens) - levels + 1):
            if found := self.parse(tokens[at : at + levels]):
                return list(found[0]), at
        return [-1] * levels, len(tokens)

    def vocabulary(self) -> Vocabulary:
        """The same for recast's own models."""
        begin, ends = tuple(self.begin), [start + size for start, size in zip(self.offset, self.catalog.sizes, strict=True)]
        size = max(*ends, *(token + 1 for token in begin), 0)
        tokens = in_a_row(self.offset, self.catalog.sizes)
        return Vocabulary(self.catalog.codes_IL, tokens, 0, (), suffix=begin, begin=begin, end=(), size=size)


@dataclass(frozen=True)
class SidScores:
    """Reward and structural score of completions: `parse` finds their SIDs, the column `targets` holds lists of SIDs."""

    parse: Parse
    targets: str = "targets"

    def reward(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        """A reward function for TRL: 1 where a completion's first SID is one of the prompt's targets, else 0."""
        require(self.targets in columns, "targets", repr(self.targets), "is no column of the data set")
        prompts = columns.get("prompts", columns[self.targets])
        targets = checked_targets(columns[self.targets], prompts, self.targets)
        sids_RSL, there_RS, targets_RTL, real_RT = self._tables(completion_ids, targets)
        first = exact_hit(sids_RSL[:, :1], targets_RTL, real_RT)[:, 0]
        return (first * there_RS[:, 0]).tolist()

    def structural(self, completion_ids: list[list[int]], examples: list[dict[str, Any]]) -> list[float]:
        """Structural scores of completions (arXiv 2604.22169), 0 for one without an SID."""
        targets = targets_of(examples, self.targets)
        sids_RSL, there_RS, targets_RTL, real_RT = self._tables(completion_ids, targets)
        score_R1 = structural_score(sids_RSL[:, None], targets_RTL, sid_mask_PGS=there_RS[:, None], target_mask_PT=real_RT)
        return score_R1[:, 0].tolist()

    def _tables(self, completion_ids: list[list[int]], targets: Sequence[Sequence[Sid]]) -> tuple[Tensor, ...]:
        levels = max((len(sid) for sids in targets for sid in sids), default=1)
        return (*_table([self.parse(ids) for ids in completion_ids], levels), *_table(targets, levels))


@dataclass(frozen=True)
class SidLevels:
    """What level-wise constructors read: the first SID of a completion, where it stands, and the column `targets` of SIDs."""

    tokens: SidTokens
    targets: str = "targets"

    def __call__(self, completion_ids: Sequence[Sequence[int]], examples: Sequence[dict[str, Any]]) -> "LevelRows":
        """Of each completion, which belongs to an example."""
        firsts = [self.tokens.first(ids) for ids in completion_ids]
        targets = targets_of(examples, self.targets)
        for row, sids in enumerate(targets):
            for sid in sids:
                if not self.tokens.has_codes(sid):
                    mend = f"must have a code below {self.tokens.catalog.sizes}, one for each level"
                    raise bad_row(self.targets, row, examples[row].get("prompt"), sid, mend)
        return LevelRows([codes for codes, _ in firsts], [at for _, at in firsts], targets)


@dataclass(frozen=True)
class LevelRows:
    """Codes of R completions' SIDs (-1 where there is none), the place of each one's first token, the codes of the targets."""

    sids: list[list[int]]
    first: list[int]
    targets: list[list[list[int]]]


def targets_of(examples: Sequence[dict[str, Any]], column: str) -> list[list[list[int]]]:
    """The targets of examples. Raises TrainError where they have none, or none of that form (`checked_targets`)."""
    for example in examples:
        require(column in example, "targets", repr(column), f"is no column of the data set, which has {', '.join(example)}")
    prompts = [example.get("prompt") for example in examples]
    return checked_targets([example[column] for example in examples], prompts, column)


def _table(rows: Sequence[Sequence[Sid]], levels: int) -> tuple[Tensor, Tensor]:
    """Lists of SIDs as (R, S, L), at least one wide, and which of them are real (R, S)."""
    width = max([1, *map(len, rows)])
    filled = [[*row, *([0] * levels for _ in range(width - len(row)))] for row in rows]
    return torch.tensor(filled), torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
