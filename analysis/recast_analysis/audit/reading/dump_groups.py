"""All groups of a dump, one row each, read in bounded memory.

What is kept: a row of sums a group, and 8 bytes a distinct completion. Groups may be spread over files and pieces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading import csv_file, json_lines, parquet_file
from recast_analysis.audit.reading.column_values import is_text, kind_of, text_of
from recast_analysis.audit.reading.columns import ROLES, Columns, recognise
from recast_analysis.audit.reading.files import file_format, find_files
from recast_analysis.audit.reading.grouping import SOURCE, check_keys, check_rewards, is_verls, may_be_cut, signs
from recast_analysis.audit.reading.one_dump import check_files, check_folders, check_runs, file_marks
from recast_analysis.audit.reading.partial_groups import EXTREMES, KEY, RowRules, partial_groups
from recast_analysis.audit.reading.piece import SAMPLE, Piece
from recast_analysis.audit.reading.sid_text import find_rules, unread_sid
from recast_analysis.given_columns import given_columns
from recast_sim.runs.table_files import file_faults

_READERS: dict[str, ModuleType] = {"parquet": parquet_file, "jsonl": json_lines, "csv": csv_file}
_WORDS = {"jsonl": "JSON lines", "csv": "CSV", "parquet": "parquet"}
_EVIDENCE = (*SOURCE, "reward_sum", "parity", "apart", "no_key", "no_uuid", "repeated_keys")  # which the signs replace
_TOLD_APART = ("group", "prompt", "completion")  # roles whose values must be of one kind in all files
_Given = dict[str, str]


@dataclass(frozen=True)
class DumpGroups:
    """A dump's groups.

    Attributes:
        table: a row a group: step, prompt (a hash), rows, hits, reward_low, reward_high, non_binary (rewards but 0 and 1);
            where known prompt_length, response_length (sums over rows), distinct (completions), the SIDs' faults (rows), and
            source (where an id makes the groups, a hash of prompt and target: the same in every step).
        rules: how the rows of the first file were read.
        form: who wrote the dump, and in which format, in words.
        files: how many there were; folders: in how many.
        unread_sid: of what looks like SIDs in a notation that is not read, an example.
        has_target: whether the first rows name a target; None where the dump has no column for it.
        repeated_steps: steps that hold the rows of the step before once more and are left out: at each of its logging steps
            TRL writes what was generated last, however often it has written that before.
        alike_steps: steps that hold the rows of the step before once more, and of groups with one completion each, so that they
            may have been generated anew: they count.
        pooled_steps: steps whose rows stand in several files.
        signs: how many groups look as if they were no groups, by sign (`grouping.signs`).
    """

    table: pl.DataFrame
    rules: RowRules
    form: str
    files: int
    folders: int
    unread_sid: str | None
    has_target: bool | None
    repeated_steps: int
    alike_steps: int
    pooled_steps: int
    signs: dict[str, int]


def read_groups(
    paths: Sequence[Path],
    hit_above: float,
    columns: Sequence[str] = (),
    items: Path | None = None,
    report: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> DumpGroups:
    """Read a dump.

    Args:
        paths: files, or folders that hold nothing else.
        hit_above: rewards above it are hits.
        columns: `role=column` where the dump's own names do not say it.
        items: file of the SIDs that exist.
        report: told of the progress, in files.

    Raises:
        AuditError: what cannot be read, with file, line or row, and column; files of different kinds, or of several dumps.
    """
    files, given = find_files(paths), given_columns(columns, ROLES, AuditError)
    kind, layout = _open(files[0], given)
    check_folders(paths, files, layout)
    rules, has_target, unread = _sample(files[0], kind, layout, hit_above, items)
    table, marks = _read(files, given, rules, report)
    if rules.cut_uids and not is_verls(table):
        rules = replace(rules, cut_uids=False)
        table, marks = _read(files, given, rules, report)
    elif rules.cut_uids:
        check_keys(table)
    pooled = check_files(marks, files, layout) if len(files) > 1 else 0
    check_runs(table, marks, files, layout)
    check_rewards(table, layout)
    table, repeated, alike = _without_repeats(table.sort(KEY))
    found = signs(table, layout)
    table = table.rename({SOURCE[0]: "source"}, strict=False)
    return DumpGroups(
        table=table.drop(_EVIDENCE, strict=False),
        rules=rules,
        form=f"{layout.kind}, {_WORDS[kind]}",
        files=len(files),
        folders=len({file.resolve().parent for file in files}),
        unread_sid=unread,
        has_target=has_target,
        repeated_steps=repeated,
        alike_steps=alike,
        pooled_steps=pooled,
        signs=found,
    )


def _read(
    files: Sequence[Path], given: _Given, rules: RowRules, report: Callable[[str, int, int], None]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The groups of all files, and what each file holds of each step."""
    first = _signature(*_open(files[0], given))
    parts: list[pl.DataFrame] = []
    for done, path in enumerate(files):
        report("files read", done, len(files))
        kind, layout = _open(path, given)
        if _signature(kind, layout) != first:
            raise AuditError(f"{path}: is {_signature(kind, layout)}, but {files[0]} is {first}; audit them apart")
        own = replace(rules, layout=layout)
        with file_faults(path, AuditError):
            found = [partial_groups(piece, own, str(path)) for piece in _READERS[kind].pieces(path, layout)]
        parts += [groups.with_columns(file=pl.lit(done)) for groups in found]
    report("files read", len(files), len(files))
    whole = pl.concat(parts)
    return _combined(whole.drop("file")), file_marks(whole)


def _open(path: Path, given: _Given) -> tuple[str, Columns]:
    kind = file_format(path)
    return kind, recognise(path, _READERS[kind].schema(path), given, untyped=kind == "csv")


def _signature(kind: str, layout: Columns) -> str:
    """What the files of one dump must have in common; a target that makes no groups may be missing in some."""
    needed = {role: names for role, names in layout.columns.items() if role != "target" or names[0] in layout.grouped_by}
    told = {role: kind_of(layout.types[needed[role][0]]) for role in _TOLD_APART if role in needed}
    roles = ", ".join(f"{role} {'+'.join(names)}{told.get(role, '')}" for role, names in sorted(needed.items()))
    return f"{layout.kind}, {_WORDS[kind]} ({roles}; lengths in {RowRules(layout, 0, None).unit})"


def _sample(
    path: Path, kind: str, layout: Columns, hit_above: float, items: Path | None
) -> tuple[RowRules, bool | None, str | None]:
    """How rows are to be read, whether there are targets, and SIDs that are not read, by the first rows."""
    completion, target = layout.column("completion"), layout.column("target")
    with file_faults(path, AuditError):
        piece = next(_READERS[kind].pieces(path, layout))
        head = piece.frame.head(SAMPLE)
        texts = pl.Series(dtype=pl.String)
        if completion is not None:
            texts = head.select(text_of(completion, layout.types[completion])).collect().to_series()
        named = None if target is None else not head.select(pl.col(target).is_null().all()).collect().item()
        responses = texts.drop_nulls() if is_text(texts.dtype) else ()
        rules = RowRules(layout, hit_above, find_rules(responses, items))
        if may_be_cut(layout):
            cut = replace(rules, cut_uids=True)
            rules = cut if is_verls(_combined(partial_groups(Piece(head, piece.origin), cut, str(path)))) else rules
    return rules, named, unread_sid(responses)


def _combined(whole: pl.DataFrame) -> pl.DataFrame:
    """One row a group, of its parts; lists of completions become their number."""
    lists = [name for name in ("completions",) if name in whole.columns]
    if whole.select(pl.struct(KEY).is_duplicated().any()).item():
        sums = [name for name in whole.columns if name not in (*KEY, *EXTREMES, *lists, "parity")]
        extremes = [function(pl.col(name)) for name, function in EXTREMES.items() if name in whole.columns]
        parity = [pl.col("parity").bitwise_xor()] if "parity" in whole.columns else []
        whole = whole.group_by(KEY).agg(pl.col(sums).sum(), *extremes, *parity, pl.col(lists).explode().unique())
    return whole.with_columns(pl.col(name).list.len().cast(pl.Int64).alias("distinct") for name in lists).drop(lists)


def _without_repeats(table: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Without TRL's copies of a step; how many there were, and how many steps look like copies but prove nothing.

    Where each group has one completion only, a policy that has collapsed may have generated the same anew.
    """
    if "fingerprint" not in table.columns:
        return table, 0, 0
    steps = table.group_by("step", maintain_order=True).agg(
        pl.col("rows", "fingerprint").sum(), telling=(pl.col("distinct") > 1).any()
    )
    again = steps.filter(pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("rows", "fingerprint")))
    copies = again.filter("telling")["step"]
    return table.filter(~pl.col("step").is_in(copies.implode())).drop("fingerprint"), len(copies), again.height - len(copies)
