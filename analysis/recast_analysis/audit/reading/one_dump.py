"""Whether several files are the parts of one dump: no copies, no second run, no validation beside the training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.columns import Columns

_FEW = 5  # steps named in a message
_MORE = 1.5  # times the rows of other steps: pooled steps that have as many are no parts


def check_folders(named: Sequence[Path], files: Sequence[Path], layout: Columns) -> None:
    """verl and TRL write a dump into one folder: a named one that holds several holds several dumps. Raises AuditError."""
    for path in filter(Path.is_dir, named if layout.one_file_a_step else ()):
        inside = sorted({str(file.parent.relative_to(path)) for file in files if file.is_relative_to(path)})
        if len(inside) > 1:
            raise AuditError(
                f"{path}: holds rollouts in {len(inside)} folders ({_listed(inside)}), and {layout.kind} writes a dump into "
                "one; audit each by its own path, or name those that are one run"
            )


def file_marks(groups: pl.DataFrame) -> pl.DataFrame:
    """A row a step of a file: file (its place), step, rows, and a hash of its groups, None where completions are not known."""
    sums = [name for name in groups.columns if name not in ("completions", "file")]
    mark = pl.struct(sums).hash().sum() if "parity" in sums else pl.lit(None, pl.UInt64)
    steps = groups.group_by("file", "step").agg(pl.col("rows").sum(), mark.alias("mark"))
    return steps.sort("file", "step")


def check_files(marks: pl.DataFrame, files: Sequence[Path], layout: Columns) -> int:
    """How many steps stand in several files and are pooled, since they look like parts.

    Raises:
        AuditError: a file with the rows of another; a step in two files of verl or TRL, which write it into one; in a table,
            steps in several files that have far more rows than the others.
    """
    if twins := _same_rows(marks):
        first, second = (files[place] for place in twins)
        raise AuditError(f"{second}: holds the same rows as {first}; leave one of them out")
    steps = marks.group_by("step").agg(pl.len().alias("files"), pl.col("rows").sum(), pl.col("file").sort()).sort("step")
    shared, alone = steps.filter(pl.col("files") > 1), steps.filter(pl.col("files") == 1)
    if not shared.height:
        return 0
    doubled = alone.height > 0 and bool(np.median(shared["rows"]) >= _MORE * np.median(alone["rows"]))
    if layout.one_file_a_step or doubled:
        numbers = ("steps " if shared.height > 1 else "step ") + _listed([str(step) for step in shared["step"]])
        which = " and ".join(str(files[place]) for place in shared["file"][0][:2])
        why = f"{layout.kind} writes a step into one file" if layout.one_file_a_step else "other steps have far fewer rows"
        raise AuditError(
            f"dumps: {numbers} in both {which}, but {why}: a resumed run, a copy, or validation? leave out the files that "
            "should not count, or audit them apart"
        )
    return shared.height


def check_runs(table: pl.DataFrame, marks: pl.DataFrame, files: Sequence[Path], layout: Columns) -> None:
    """Folders that were named one by one are one run if their groups have one size and their steps follow each other.

    Raises AuditError.
    """
    folders = [str(file.resolve().parent) for file in files]
    if not layout.one_file_a_step or len(set(folders)) == 1:
        return
    of_step = dict(zip(marks["step"], (folders[place] for place in marks["file"]), strict=True))
    runs = (
        table.select("step", "rows", folder=pl.col("step").replace_strict(of_step, return_dtype=pl.String))
        .group_by("folder")
        .agg(pl.col("rows").mode().max(), first=pl.col("step").min(), last=pl.col("step").max())
        .sort("first")
    )
    if runs["rows"].n_unique() > 1 or (runs["first"] <= runs["last"].shift(1)).any():
        found = [f"{row['folder']} (groups of {row['rows']}, steps {row['first']} to {row['last']})" for row in runs.to_dicts()]
        raise AuditError(f"dumps: {_listed(found)} are no parts of one run; audit them apart, such as training and validation")


def _same_rows(marks: pl.DataFrame) -> tuple[int, int] | None:
    """The places of the first two files that are known to hold the same rows."""
    known = marks.filter(pl.col("mark").is_not_null())
    contents = known.group_by("file").agg(pl.struct("step", "rows", "mark").sort().alias("steps")).sort("file")
    seen: dict[str, int] = {}
    for place, steps in contents.iter_rows():
        if (first := seen.setdefault(repr(steps), place)) != place:
            return first, place
    return None


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(words[:_FEW])
    return shown if len(words) <= _FEW else f"{shown} and {len(words) - _FEW} more"
