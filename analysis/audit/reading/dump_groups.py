"""All groups of a dump, one row each, read in bounded memory.

What is kept: a row of sums a group, and 8 bytes a distinct completion. Groups may be spread over files and pieces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import polars as pl

from analysis.audit.audit_error import AuditError
from analysis.audit.reading import csv_file, json_lines, parquet_file
from analysis.audit.reading.columns import Columns, is_text, parse_columns, recognise
from analysis.audit.reading.files import file_format, find_files
from analysis.audit.reading.partial_groups import KEY, RowRules, partial_groups, text_of
from analysis.audit.reading.piece import SAMPLE
from analysis.audit.reading.sid_text import SidRules, find_rules
from recast_sim.runs.table_files import file_faults

_READERS: dict[str, ModuleType] = {"parquet": parquet_file, "jsonl": json_lines, "csv": csv_file}
_WORDS = {"jsonl": "JSON lines", "csv": "CSV", "parquet": "parquet"}
_EXTREMES = {"reward_low": pl.Expr.min, "reward_high": pl.Expr.max}


@dataclass(frozen=True)
class DumpGroups:
    """A dump's groups.

    Attributes:
        table: a row a group: step, prompt (a hash), rows, hits, reward_low, reward_high, non_binary (rewards but 0 and 1);
            where known prompt_length, response_length (sums over rows), distinct (completions), and the SIDs' faults (rows).
        rules: how the rows of the first file were read.
        form: who wrote the dump, and in which format, in words.
        files: how many there were.
        has_target: whether the first rows name a target; None where the dump has no column for it.
        repeated_steps: steps that hold the rows of the step before once more and are left out: at each of its logging steps
            TRL writes what was generated last, however often it has written that before.
    """

    table: pl.DataFrame
    rules: RowRules
    form: str
    files: int
    has_target: bool | None
    repeated_steps: int


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
        AuditError: what cannot be read, with file, line or row, and column; or files of different kinds.
    """
    files, given = find_files(paths), parse_columns(columns)
    kind, layout = _open(files[0], given)
    sids, has_target = _sample(files[0], kind, layout, items)
    rules, first = RowRules(layout, hit_above, sids), _signature(kind, layout)
    parts: list[pl.DataFrame] = []
    for done, path in enumerate(files):
        report("files read", done, len(files))
        kind, layout = _open(path, given)
        if _signature(kind, layout) != first:
            raise AuditError(f"{path}: is {_signature(kind, layout)}, but {files[0]} is {first}; audit them apart")
        own = RowRules(layout, hit_above, sids)
        with file_faults(path, AuditError):
            parts += [partial_groups(piece, own, str(path)) for piece in _READERS[kind].pieces(path, layout)]
    report("files read", len(files), len(files))
    table, repeated = _without_repeats(_combined(parts), rules)
    return DumpGroups(table, rules, f"{layout.kind}, {_WORDS[kind]}", len(files), has_target, repeated)


def _open(path: Path, given: dict[str, tuple[str, ...]]) -> tuple[str, Columns]:
    kind = file_format(path)
    return kind, recognise(path, _READERS[kind].schema(path), given, untyped=kind == "csv")


def _signature(kind: str, layout: Columns) -> str:
    """What the files of one dump must have in common; a target may be missing in some."""
    roles = ", ".join(f"{role} {'+'.join(names)}" for role, names in sorted(layout.columns.items()) if role != "target")
    return f"{layout.kind}, {_WORDS[kind]} ({roles}; lengths in {RowRules(layout, 0, None).unit})"


def _sample(path: Path, kind: str, layout: Columns, items: Path | None) -> tuple[SidRules | None, bool | None]:
    """The SIDs' rules, and whether there are targets, by the first rows."""
    completion, target = layout.column("completion"), layout.column("target")
    with file_faults(path, AuditError):
        head = next(_READERS[kind].pieces(path, layout)).frame.head(SAMPLE)
        texts = head.select(text_of(layout, completion)).collect().to_series() if completion else pl.Series(dtype=pl.String)
        named = None if target is None else layout.types[target] != pl.Null
        if target is not None and named and kind != "jsonl":  # whose targets may be anything, and are not read
            named = not head.select(pl.col(target).is_null().all()).collect().item()
    return find_rules(texts.drop_nulls() if is_text(texts.dtype) else (), items), named


def _combined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """One row a group; lists of completions become their number."""
    whole = pl.concat(parts)
    lists = [name for name in ("completions",) if name in whole.columns]
    if whole.select(pl.struct(KEY).is_duplicated().any()).item():
        sums = [name for name in whole.columns if name not in (*KEY, *_EXTREMES, *lists)]
        extremes = [function(pl.col(name)) for name, function in _EXTREMES.items()]
        whole = whole.group_by(KEY).agg(pl.col(sums).sum(), *extremes, pl.col(lists).explode().unique())
    return whole.with_columns(pl.col(name).list.len().cast(pl.Int64).alias("distinct") for name in lists).drop(lists)


def _without_repeats(table: pl.DataFrame, rules: RowRules) -> tuple[pl.DataFrame, int]:
    table = table.sort(KEY)
    if "fingerprint" not in table.columns:
        return table, 0
    prompts = (pl.col("prompt") % 2**32 * pl.col("rows").cast(pl.UInt64)).sum()
    marks = table.group_by("step", maintain_order=True).agg(prompts, pl.col("rows", "hits", "fingerprint").sum())
    again = marks.filter(pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in marks.columns[1:]))
    return table.filter(~pl.col("step").is_in(again["step"].implode())).drop("fingerprint"), again.height
