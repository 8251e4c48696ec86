"""Every figure of an audit, from its groups."""

from typing import Any

import polars as pl

from analysis.audit.actor_corners import actor_corners
from analysis.audit.audit_error import AuditError
from analysis.audit.cautions import cautions
from analysis.audit.hit_fit import fit_windows
from analysis.audit.reading.dump_groups import DumpGroups
from analysis.drawing.style import REGIME_COLOURS

REGIMES = tuple(REGIME_COLOURS)


def audit_summary(groups: DumpGroups) -> dict[str, Any]:
    """The audit, JSON-ready; None stands for what the dump does not say (and for an infinite end of an interval).

    Raises:
        AuditError: no group has two rows.
    """
    table = groups.table
    size = _common_size(groups)
    shares = table.select(regime_expressions()).row(0, named=True)
    corners = actor_corners(table)
    cost = corners["mean_prompt"] / corners["mean_response"] if corners and corners["mean_response"] else None
    summary: dict[str, Any] = {
        "dump": _dump(groups, size),
        "regimes": {name: shares[name] for name in REGIMES},
        "learnable": {
            "before": shares["single_hit"] + shares["multi_hit"],
            "after_repair": 1 - shares["all_hit"],
            "targets": groups.has_target,
        },
        "waste": _waste(table),
        "duplicates": _duplicates(table),
        "sids": _sids(groups),
        "fits": fit_windows(table, size, cost),
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


def _common_size(groups: DumpGroups) -> int:
    sizes = groups.table["rows"].value_counts().sort("count", "rows", descending=True)
    if sizes["rows"].max() == 1:
        layout = groups.rules.layout
        raise AuditError(
            f"column {layout.grouped_by!r}: every group of a step has one row only; name the column that the rollouts of a "
            "prompt share, for example --columns group=NAME"
        )
    return sizes["rows"][0]


def _dump(groups: DumpGroups, size: int) -> dict[str, Any]:
    table, layout = groups.table, groups.rules.layout
    whole, merged = table["rows"] == size, (table["rows"] > size) & (table["rows"] % size == 0)
    return {
        "form": groups.form,
        "files": groups.files,
        "rows": _total(table, "rows"),
        "groups": table.height,
        "steps": table["step"].n_unique(),
        "first_step": table["step"].min(),
        "last_step": table["step"].max(),
        "repeated_steps": groups.repeated_steps,
        "grouped_by": layout.grouped_by,
        "group_size": size,
        "merged_groups": int(merged.sum()),
        "ragged_groups": int((~whole & ~merged).sum()),
        "reward": " + ".join(layout.columns["reward"]),
        "reward_low": table["reward_low"].min(),
        "reward_high": table["reward_high"].max(),
        "non_binary_rows": _total(table, "non_binary"),
        "hit_above": groups.rules.hit_above,
        "hit_rate": _total(table, "hits") / _total(table, "rows"),
        "length_unit": groups.rules.unit,
    }


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
