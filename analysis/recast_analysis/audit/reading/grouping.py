"""Which rows of a step are one group, and what speaks for and against it.

verl >= 0.9 dumps as `uid` the key of a row, {uid of the prompt}_{session}_{output}; changed trainers dump other ids there. The
two numbers are cut where they can only be verl's own: every row has them, no key stands twice in a step, and the rows that come
together have one prompt and one target. An id such as train_1_0 that several rows share is taken as it stands.
"""

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.reading.column_values import identity_of, is_text, joint
from recast_analysis.audit.reading.columns import Columns

_NUMBERS = r"_(?:0|[1-9][0-9]*)_(?:0|[1-9][0-9]*)$"  # as Python writes them: an 05 is somebody else's
_UUID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # what verl gives a prompt
_TELLING = 8  # groups that are not of one kind, completions beyond each group's first: with fewer, chance may make the sign
_ROUNDING = 1e-5  # of a sum of float32, against the largest summand times their number
SOURCE = ("source_low", "source_high")


def may_be_cut(layout: Columns) -> bool:
    """Whether the groups' column may hold verl's keys of rows; what `--columns` names is taken literally."""
    name = layout.column("group")
    return layout.kind == "verl" and name is not None and "group" not in layout.chosen and is_text(layout.types[name])


def group_of(layout: Columns, cut: bool) -> pl.Expr:
    """A hash that tells the groups of one step apart."""
    if cut:
        return _uid(layout).str.replace(_NUMBERS, "").hash()
    return joint(identity_of(name, layout.types[name]) for name in layout.grouped_by)


def evidence(layout: Columns, cut: bool) -> dict[str, pl.Expr]:
    """A row's values by which a grouping can be judged.

    `source`: a hash of prompt and target, where an id makes the groups; `key`, `no_key` and `no_uuid`: verl's key, and whether
    it is none, or none that begins with a UUID.
    """
    names = [name for role in ("prompt", "target") if (name := layout.column(role)) is not None]
    found = {}
    if layout.column("group") is not None and layout.column("prompt") is not None:
        found["source"] = joint(identity_of(name, layout.types[name]) for name in names)
    if cut:
        found["key"] = _uid(layout).hash()
        found["no_key"] = ~_uid(layout).str.contains(_NUMBERS)
        found["no_uuid"] = ~_uid(layout).str.contains(_UUID + _NUMBERS)
    return found


def is_verls(groups: pl.DataFrame) -> bool:
    """Whether cutting verl's numbers made these groups, or tore ids of somebody else's; numbers behind UUIDs are verl's."""
    repeated, no_key, no_uuid = groups.select(pl.col("repeated_keys", "no_key", "no_uuid").sum()).row(0)
    one_source = groups.select((pl.col(SOURCE[0]) == pl.col(SOURCE[1])).all()).item()
    return not no_key and (not no_uuid or (not repeated and one_source))


def check_keys(groups: pl.DataFrame) -> None:
    """Raise AuditError where keys of verl stand twice in a step."""
    if repeated := groups["repeated_keys"].sum():
        raise AuditError(
            f"column 'uid': verl gives each row one of its own, but {repeated:,} rows repeat one of their step; "
            "is a file there twice? leave the copy out"
        )


def check_rewards(groups: pl.DataFrame, layout: Columns) -> None:
    """Raise AuditError where what should be rewards are advantages: they add up to 0 in every group, and are not all 0.

    So does verl's own dump behind a sampler that hands over a plan: kept rows, their coefficients as scores.
    """
    varied, size = pl.col("reward_low") < pl.col("reward_high"), pl.max_horizontal(pl.col("reward_low", "reward_high").abs())
    zero = pl.col("reward_sum").abs() <= _ROUNDING * size * pl.col("rows")
    if groups.select(zero.all() & (varied.sum() >= _TELLING)).item():
        name = "+".join(layout.columns["reward"])
        raise AuditError(
            f"column {name!r}: adds up to 0 in each of the {len(groups):,} groups, as advantages do and rewards do not; name "
            "the rewards by --columns reward=NAME. Of recast in verl, audit what its sampler writes to the folder "
            "trainer.rollout_data_dir (docs/verl.md)"
        )


def signs(groups: pl.DataFrame, layout: Columns) -> dict[str, int]:
    """How many groups look as if they were no groups; a sign that the dump cannot give is left out.

    mixed: with rows of more than one prompt or target. twins: of the same prompt and target as another group of their step.
    doubled: where groups have completions enough to tell, and all hold each row an even number of times. apart: of TRL's
    prompts, whose rows do not stand together in the file.
    """
    found: dict[str, pl.Expr] = {}
    if layout.kind == "trl" and layout.column("group") is None:
        found["apart"] = (pl.col("apart") > 0).sum()
    if SOURCE[0] in groups.columns:
        same = pl.col(SOURCE[0]) == pl.col(SOURCE[1])
        found["mixed"] = (~same).sum()
        found["twins"] = (same & pl.struct("step", SOURCE[0]).is_duplicated()).sum()
    if "parity" in groups.columns:
        telling = pl.col("distinct") - 1
        even = ((pl.col("parity") == 0) | (telling == 0)).all()
        found["doubled"] = pl.when(even & (telling.sum() >= _TELLING)).then(pl.len()).otherwise(0)
    return groups.select(**found).row(0, named=True) if found else {}


def words_of(layout: Columns, cut: bool) -> str:
    """The rule that found the groups, in words."""
    names = " with ".join(repr(name) for name in layout.grouped_by)
    if cut:
        return f"{names} without the two numbers that verl appends"
    return f"{names} as it stands" if layout.kind == "verl" and layout.column("group") is not None else names


def _uid(layout: Columns) -> pl.Expr:
    return pl.col(layout.grouped_by[0]).cast(pl.String)
