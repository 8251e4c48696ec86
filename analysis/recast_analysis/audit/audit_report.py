"""Report of an audit, and its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recast_analysis.audit.audit_figure import audit_figure
from recast_analysis.audit.figures_of_audit import REGIMES, audit_summary, groups_in_words, steps_table
from recast_analysis.audit.reading.dump_groups import DumpGroups
from recast_analysis.drawing.words import count_words
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import atomic_file, write_json

_BINS = 8  # rows of the table of regimes over training
_CORNERS = {
    "all_rows_repeated": "all rows, prompt repeated",
    "all_rows_shared": "all rows, prompt shared",
    "pair_repeated": "2 rows, prompt repeated",
    "pair_shared": "2 rows, prompt shared",
}


def report(groups: DumpGroups) -> Report:
    """What was read, regimes over training, waste, fits, other group sizes, and the actor's four corners.

    Raises:
        AuditError: no group has two rows.
    """
    summary, steps = audit_summary(groups), steps_table(groups.table)
    return Report(summary, _shown(summary, steps), lambda: [audit_figure(summary, steps)])


def _shown(summary: Mapping[str, Any], steps: pl.DataFrame) -> list[Table | str]:
    dump, fits, actor = summary["dump"], summary["fits"], summary["actor"]
    shown: list[Table | str] = [_heading(dump), _regimes(steps), _shares(summary), _fits(fits)]
    if "sizes" in fits["all steps"]:
        shown += [_sizes(fits, dump["group_size"]), _best(fits, dump["length_unit"])]
    if actor:
        shown += [_actor(actor, dump["length_unit"]), _lengths(actor)]
    return [*shown, *(f"warning: {words}" for words in summary["warnings"])]


def write_audit(folder: Path, summary: Mapping[str, Any], groups: pl.DataFrame) -> None:
    """audit.json, steps.parquet and groups.parquet, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", summary)
    for name, table in (("steps", steps_table(groups)), ("groups", groups)):
        with atomic_file(folder / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)


def _heading(dump: Mapping[str, Any]) -> str:
    unit = f"lengths in {dump['length_unit']}" if dump["length_unit"] else "no lengths"
    files = count_words(dump["files"], "file") + (f" in {dump['folders']} folders" if dump["folders"] > 1 else "")
    return (
        f"{dump['form']}: {dump['rows']:,} rollouts in {groups_in_words(dump)} (by step and {dump['grouped_by']}), "
        f"{dump['steps']:,} steps ({dump['first_step']} to {dump['last_step']}), {files}; "
        f"a hit is {dump['reward']} > {dump['hit_above']:g}, hit rate {dump['hit_rate']:.4g}; {unit}"
    )


def _regimes(steps: pl.DataFrame) -> Table:
    """Consecutive steps pooled into at most _BINS rows; shares are of groups."""
    extra = [name for name in ("wasted", "duplicates", "sid_missing", "sid_malformed", "sid_unknown") if name in steps.columns]
    per = -(-steps.height // _BINS)
    rows = []
    for start in range(0, steps.height, per):
        part = steps.slice(start, per)
        by_group = [np.average(part[name].to_numpy(), weights=part["groups"].to_numpy()) for name in REGIMES]
        by_row = [np.average(part[name].to_numpy(), weights=part["rows"].to_numpy()) for name in extra]
        first, last = part["step"][0], part["step"][-1]
        place = str(first) if first == last else f"{first} to {last}"
        rows.append((place, f"{part['groups'].sum():,}", *(f"{100 * share:.1f}" for share in (*by_group, *by_row))))
    header = ("steps", "groups", *(name.replace("_", "-") for name in REGIMES), *map(_words, extra))
    return Table("regimes over training (% of groups), waste and faults (% of rollouts)", header, rows)


def _shares(summary: Mapping[str, Any]) -> Table:
    learnable, waste, dump = summary["learnable"], summary["waste"], summary["dump"]
    rows = [
        _share_row("learnable groups (a hit and a miss)", learnable["before"], learnable["before"] * dump["groups"]),
        _share_row(
            "learnable groups if all-zero ones are repaired",
            learnable["after_repair"],
            learnable["after_repair"] * dump["groups"],
        ),
        _share_row("rollouts in groups without variance", waste["rollouts_share"], waste["rollouts"]),
    ]
    if waste["length_share"] is not None:
        rows.append(_share_row(f"response {dump['length_unit']} in them", waste["length_share"], waste["length"]))
    if (again := summary["duplicates"]) is not None:
        rows.append(_share_row("rollouts that repeat one of their group", again["rollouts_share"], again["rollouts"]))
    if (sids := summary["sids"]) is not None:
        faults = {"missing": "no SID", "malformed": f"an SID not of {sids['levels']} levels", "unknown": "an SID of no item"}
        rows += [
            _share_row(f"rollouts with {words}", sids[name], sids[name] * dump["rows"])
            for name, words in faults.items()
            if name in sids
        ]
    return Table("what the groups are worth", ("", "share", "count"), rows)


def _share_row(words: str, share: float, count: float) -> tuple[str, str, str]:
    return words, _percent(share), f"{count:,.0f}"


def _fits(fits: Mapping[str, Mapping[str, Any]]) -> Table:
    header = ("window", "groups", "mean hit rate", "a", "b", "chi2", "dof", "p")
    return Table("Beta-binomial fit of hits per group, 95 % intervals", header, [_fit_row(*pair) for pair in fits.items()])


def _fit_row(name: str, fit: Mapping[str, Any]) -> tuple[str, ...]:
    if "refused" in fit:
        return (name, f"{fit['groups']:,}", f"no fit: {fit['refused']}", *5 * [""])
    p = "" if fit["p_value"] is None else f"{fit['p_value']:.2g}"
    cells = (_interval(fit[key], fit[f"{key}_interval"]) for key in ("mean", "a", "b"))
    return (name, f"{fit['groups']:,}", *cells, f"{fit['chi_square']:.1f}", str(fit["dof"]), p)


def _sizes(fits: Mapping[str, Mapping[str, Any]], own: int) -> Table:
    last = fits.get("last quarter", {}).get("sizes")
    rows = []
    for place, row in enumerate(fits["all steps"]["sizes"]):
        cells = [_percents(row["all_zero"], row["all_zero_interval"]), _percents(row["learnable"], row["learnable_interval"])]
        cells += [f"{row['learnable_per_1000_rollouts']:.2f}", f"{row['mean_absolute_advantage']:.4f}"]
        if last:
            cells.append(_percents(last[place]["all_zero"], last[place]["all_zero_interval"]))
        rows.append((f"{row['group_size']}{' (this dump)' if row['group_size'] == own else ''}", *cells))
    header = ["G", "all-zero %, predicted", "learnable %", "learnable groups per 1,000 rollouts"]
    header += ["mean absolute advantage (GRPO)", *(["all-zero %, last quarter"] if last else [])]
    return Table("other group sizes, from the fit to all steps", header, rows)


def _best(fits: Mapping[str, Mapping[str, Any]], unit: str | None) -> str:
    best = fits["all steps"]["best_group_size"]
    words = (
        f"best G for a budget of rollouts: {best['prompt_free']} for most learnable groups (so it is for any hit rates: their "
        "share is concave in G), the widest for most signal a rollout (the mean absolute advantage never falls with G); "
        "which of the two counts depends on how the prompts' gradients differ, which rewards alone do not say."
    )
    if best["prompt_paid_once"] is not None:
        words += (
            f" For a budget of {unit} with each prompt paid once ({best['prompt_cost']:.1f} mean responses long): "
            f"{best['prompt_paid_once']} for most learnable groups."
        )
    return words


def _actor(actor: Mapping[str, Any], unit: str) -> Table:
    saved = {name: "" if factor is None else f"{factor:.2f}" for name, factor in actor["factors"].items()}
    rows = [(words, f"{actor['lengths'][name]:,.0f}", saved[name]) for name, words in _CORNERS.items()]
    return Table(f"what the actor reads, in {unit}", ("", unit, "saved, times"), rows)


def _lengths(actor: Mapping[str, Any]) -> str:
    return (
        f"mean prompt {actor['mean_prompt']:.1f}, mean response {actor['mean_response']:.1f}; 2 rows in "
        f"{100 * actor['groups_with_a_pair']:.1f} % of the groups, all-zero ones repaired, none in groups of hits alone"
    )


def _words(name: str) -> str:
    return {"sid_missing": "no SID", "sid_malformed": "malformed SID", "sid_unknown": "unknown SID"}.get(name, name)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _percents(share: float, interval: Sequence[float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _interval(value: float | None, interval: Sequence[float | None]) -> str:
    middle, low, high = ("inf" if number is None else f"{number:.4g}" for number in (value, *interval))
    return f"{middle} [{low}, {high}]"
