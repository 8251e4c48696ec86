"""Every figure of an audit, from its groups."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from recast_analysis.audit.actor_corners import actor_corners
from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.cautions import cautions
from recast_analysis.audit.hit_fit import fit_windows
from recast_analysis.audit.reading.dump_groups import DumpGroups
from recast_analysis.drawing.style import REGIME_COLOURS

REGIMES = tuple(REGIME_COLOURS)
_SIZES = 3  # sizes of groups that are named


def audit_summary(groups: DumpGroups) -> dict[str, Any]:
    """The audit, JSON-ready; None stands for what the dump does not say (and for an infinite end of an interval).

    Raises:
        AuditError: no group has two rows.
    """
    table = groups.table
    dump = _dump(groups)
    shares = table.select(regime_expressions()).row(0, named=True)
    corners = actor_corners(table)
    cost = corners["mean_prompt"] / corners["mean_response"] if corners and corners["mean_response"] else None
    summary: dict[str, Any] = {
        "dump": dump,
        "regimes": {name: shares[name] for name in REGIMES},
        "learnable": {
            "before": shares["single_hit"] + shares["multi_hit"],
            "after_repair": 1 - shares["all_hit"],
            "targets": groups.has_target,
        },
        "waste": _waste(table),
        "duplicates": _duplicates(table),
        "sids": _sids(groups),
        "fits": fit_windows(table, dump["group_size"], cost),
        "actor": corners,
    }
    return summary | {"warnings": cautions(summary)}


def steps_table(table: pl.DataFrame) -> pl.DataFrame:
    """A row a step: groups, rows, hit_rate, the regimes' shares of groups, wasted (share of rows in groups without variance),
    and where known `duplicates` and the SID faults (shares of rows)."""
    rows = pl.col("rows").sum()
    extra = {name: pl.col(name).sum() / rows for name in table.columns if name.startswith("sid_")}
    if "distinct" in table.columns:
        extra["duplicates"] = 1 - pl.col("distinct").sum() / rows
    return table.group_by("step", maintain_order=True).agg(
        pl.len().alias("groups"),
        rows.alias("rows"),
        (pl.col("hits").sum() / rows).alias("hit_rate"),
        *regime_expressions(),
        (pl.col("rows").filter(flat()).sum() / rows).alias("wasted"),
        **extra,
    )


def regime_expressions() -> list[pl.Expr]:
    """Shares of groups: K = 0, K = 1 < n, 1 < K < n, K = n."""
    K, n = pl.col("hits"), pl.col("rows")
    shares = {"all_zero": K == 0, "single_hit": (K == 1) & (n > 1), "multi_hit": (K > 1) & (n > K), "all_hit": n == K}
    return [shares[name].mean().alias(name) for name in REGIMES]


def flat() -> pl.Expr:
    """Whether all rewards of a group are equal, so that no advantage is left."""
    return pl.col("reward_low") == pl.col("reward_high")


def groups_in_words(dump: Mapping[str, Any]) -> str:
    """ "36 groups of 8", or "78 groups, 18 of 4, 60 of 1"."""
    if len(dump["group_sizes"]) == 1:
        return f"{dump['groups']:,} groups of {dump['group_size']}"
    shown = (f"{groups:,} of {rows}" for rows, groups in dump["group_sizes"][:_SIZES])
    return f"{dump['groups']:,} groups, {', '.join(shown)}{', ...' if len(dump['group_sizes']) > _SIZES else ''}"


def _sizes(groups: DumpGroups) -> list[tuple[int, int]]:
    """Rows a group and how many groups have them, the most common size of 2 and more first, of several the smallest."""
    sizes = groups.table["rows"].value_counts().sort("count", "rows", descending=[True, False]).rows()
    if max(rows for rows, _ in sizes) == 1:
        layout = groups.rules.layout
        prompt = layout.column("prompt")
        name = "NAME" if prompt is None or layout.grouped_by == (prompt,) else prompt
        raise AuditError(
            f"column {groups.rules.grouping}: every group of a step has one row only; name the column that the rollouts of a "
            f"prompt share, for example --columns group={name}"
        )
    return sorted(sizes, key=lambda size: size[0] == 1)  # where most stand alone, those that do not are the groups


def _dump(groups: DumpGroups) -> dict[str, Any]:
    table = groups.table
    sizes = _sizes(groups)
    size = sizes[0][0]
    merged = sum(count for rows, count in sizes if rows > size and rows % size == 0)
    parts = sum(count for rows, count in sizes if 1 < rows < size and size % rows == 0)
    return {
        "form": groups.form,
        "files": groups.files,
        "folders": groups.folders,
        "rows": _total(table, "rows"),
        "groups": table.height,
        "steps": table["step"].n_unique(),
        "first_step": table["step"].min(),
        "last_step": table["step"].max(),
        "repeated_steps": groups.repeated_steps,
        "alike_steps": groups.alike_steps,
        "unread_sid": groups.unread_sid,
        "pooled_steps": groups.pooled_steps,
        "doubled_steps": _doubled_steps(table),
        "grouped_by": groups.rules.grouping,
        "group_size": size,
        "group_sizes": [list(pair) for pair in sizes],
        "merged_groups": merged,
        "part_groups": parts,
        "ragged_groups": table.height - sizes[0][1] - merged - parts,
        "signs": groups.signs,
        "reward": " + ".join(groups.rules.layout.columns["reward"]),
        "reward_low": table["reward_low"].min(),
        "reward_high": table["reward_high"].max(),
        "non_binary_rows": _total(table, "non_binary"),
        "hit_above": groups.rules.hit_above,
        "hit_rate": _total(table, "hits") / _total(table, "rows"),
        "length_unit": groups.rules.unit,
    }


def _doubled_steps(table: pl.DataFrame) -> list[int]:
    """Steps with twice the rows, or three times, ... where at least half of all steps have the same number."""
    steps = table.group_by("step", maintain_order=True).agg(pl.col("rows").sum())
    common, count = steps["rows"].value_counts().sort(pl.col("count"), -pl.col("rows").cast(pl.Int64), descending=True).row(0)
    if 2 * count < steps.height or count < 2:
        return []
    return steps.filter((pl.col("rows") > common) & (pl.col("rows") % common == 0))["step"].to_list()


def _waste(table: pl.DataFrame) -> dict[str, Any]:
    """Rows in groups whose rewards are all equal, and the length of their responses."""
    wasted = table.filter(flat())
    known = "response_length" in table.columns
    rows, length = _total(table, "rows"), _total(table, "response_length") if known else 0
    return {
        "groups": wasted.height / table.height,
        "rollouts": _total(wasted, "rows"),
        "rollouts_share": _total(wasted, "rows") / rows,
        "length": _total(wasted, "response_length") if known else None,
        "length_share": _total(wasted, "response_length") / length if length else None,
    }


def _duplicates(table: pl.DataFrame) -> dict[str, Any] | None:
    """Rows whose completion stands in their group before; None where the dump has no completions."""
    if "distinct" not in table.columns:
        return None
    again = table["rows"] - table["distinct"]
    return {
        "rollouts": int(again.sum()),
        "rollouts_share": int(again.sum()) / _total(table, "rows"),
        "groups_share": float((again > 0).to_numpy().mean()),
        "distinct_per_group": _total(table, "distinct") / table.height,
    }


def _sids(groups: DumpGroups) -> dict[str, Any] | None:
    rules, table = groups.rules.sids, groups.table
    if rules is None:
        return None
    rows = _total(table, "rows")
    faults = {name.removeprefix("sid_"): _total(table, name) / rows for name in table.columns if name.startswith("sid_")}
    items = None if rules.items is None else len(rules.items)
    return {"levels": rules.levels, "source": rules.source, "items": items, **faults}


def _total(table: pl.DataFrame, column: str) -> int:
    return int(table[column].to_numpy().sum())
