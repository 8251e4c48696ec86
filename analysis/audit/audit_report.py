"""Tables of an audit in words, and its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.box import MARKDOWN
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.audit.figures_of_audit import REGIMES
from recast_sim.runs import atomic_file, write_json

_BINS = 8  # rows of the table of regimes over training
_CORNERS = {
    "all_rows_repeated": "all rows, prompt repeated",
    "all_rows_shared": "all rows, prompt shared",
    "pair_repeated": "2 rows, prompt repeated",
    "pair_shared": "2 rows, prompt shared",
}


def print_audit(summary: Mapping[str, Any], steps: pl.DataFrame, console: Console) -> None:
    """What was read, regimes over training, waste, fits, other group sizes, and the actor's four corners."""
    dump = summary["dump"]
    console.print(_heading(dump), highlight=False, soft_wrap=True, markup=False)
    console.print(_regimes(steps))
    console.print(_shares(summary), _fits(summary["fits"]))
    if "sizes" in summary["fits"]["all steps"]:
        console.print(_sizes(summary["fits"], dump["group_size"]))
        console.print(_best(summary["fits"], dump["length_unit"]), highlight=False, soft_wrap=True, markup=False)
    if summary["actor"]:
        console.print(_actor(summary["actor"], dump["length_unit"]))
        console.print(_lengths(summary["actor"]), highlight=False, soft_wrap=True)
    for words in summary["warnings"]:
        console.print(f"warning: {words}", highlight=False, soft_wrap=True, markup=False)


def write_audit(folder: Path, summary: Mapping[str, Any], steps: pl.DataFrame, groups: pl.DataFrame) -> None:
    """audit.json, steps.parquet and groups.parquet, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", summary)
    for name, table in (("steps", steps), ("groups", groups)):
        with atomic_file(folder / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)


def _heading(dump: Mapping[str, Any]) -> str:
    unit = f"lengths in {dump['length_unit']}" if dump["length_unit"] else "no lengths"
    return (
        f"{dump['form']}: {dump['rows']:,} rollouts in {dump['groups']:,} groups of {dump['group_size']} (by step and "
        f"{dump['grouped_by']!r}), {dump['steps']:,} steps ({dump['first_step']} to {dump['last_step']}), "
        f"{dump['files']} file(s); a hit is {dump['reward']} > {dump['hit_above']:g}, hit rate {dump['hit_rate']:.4g}; {unit}"
    )


def _regimes(steps: pl.DataFrame) -> Table:
    """Consecutive steps pooled into at most _BINS rows; shares are of groups."""
    extra = [name for name in ("wasted", "duplicates", "sid_missing", "sid_malformed", "sid_unknown") if name in steps.columns]
    title = "regimes over training (% of groups), waste and faults (% of rollouts)"
    table = _table(title, "steps", "groups", *(name.replace("_", "-") for name in REGIMES), *(_words(name) for name in extra))
    per = -(-steps.height // _BINS)
    for start in range(0, steps.height, per):
        part = steps.slice(start, per)
        by_group = [np.average(part[name].to_numpy(), weights=part["groups"].to_numpy()) for name in REGIMES]
        by_row = [np.average(part[name].to_numpy(), weights=part["rows"].to_numpy()) for name in extra]
        first, last = part["step"][0], part["step"][-1]
        place = str(first) if first == last else f"{first} to {last}"
        table.add_row(place, f"{part['groups'].sum():,}", *(f"{100 * share:.1f}" for share in (*by_group, *by_row)))
    return table


def _shares(summary: Mapping[str, Any]) -> Table:
    learnable, waste, unit = summary["learnable"], summary["waste"], summary["dump"]["length_unit"]
    table = _table("what the groups are worth", "", "share", "count")
    groups = summary["dump"]["groups"]
    after = "learnable groups if all-zero ones are repaired"
    table.add_row("learnable groups (a hit and a miss)", _percent(learnable["before"]), f"{learnable['before'] * groups:,.0f}")
    table.add_row(after, _percent(learnable["after_repair"]), f"{learnable['after_repair'] * groups:,.0f}")
    table.add_row("rollouts in groups without variance", _percent(waste["rollouts_share"]), f"{waste['rollouts']:,}")
    if waste["length_share"] is not None:
        table.add_row(f"response {unit} in them", _percent(waste["length_share"]), f"{waste['length']:,}")
    if (again := summary["duplicates"]) is not None:
        table.add_row("rollouts that repeat one of their group", _percent(again["rollouts_share"]), f"{again['rollouts']:,}")
    if (sids := summary["sids"]) is not None:
        for name, words in (
            ("missing", "no SID"),
            ("malformed", f"an SID not of {sids['levels']} levels"),
            ("unknown", "an SID of no item"),
        ):
            if name in sids:
                table.add_row(f"rollouts with {words}", _percent(sids[name]), f"{sids[name] * summary['dump']['rows']:,.0f}")
    return table


def _fits(fits: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table(
        "Beta-binomial fit of hits per group, 95 % intervals", "window", "groups", "mean hit rate", "a", "b", "chi2", "dof", "p"
    )
    for name, fit in fits.items():
        if "refused" in fit:
            table.add_row(name, f"{fit['groups']:,}", escape(f"no fit: {fit['refused']}"))
            continue
        p = "" if fit["p_value"] is None else f"{fit['p_value']:.2g}"
        cells = (_interval(fit["mean"], fit["mean_interval"]), *(_interval(fit[k], fit[f"{k}_interval"]) for k in "ab"))
        table.add_row(name, f"{fit['groups']:,}", *cells, f"{fit['chi_square']:.1f}", str(fit["dof"]), p)
    return table


def _sizes(fits: Mapping[str, Mapping[str, Any]], own: int) -> Table:
    columns = ("all-zero %, predicted", "learnable %", "learnable groups per 1,000 rollouts", "mean absolute advantage (GRPO)")
    last = fits.get("last quarter", {})
    table = _table(
        "other group sizes, from the fit to all steps",
        "G",
        *columns,
        *(("all-zero %, last quarter",) if "sizes" in last else ()),
    )
    for place, row in enumerate(fits["all steps"]["sizes"]):
        cells = [_percents(row["all_zero"], row["all_zero_interval"]), _percents(row["learnable"], row["learnable_interval"])]
        cells += [f"{row['learnable_per_1000_rollouts']:.2f}", f"{row['mean_absolute_advantage']:.4f}"]
        if "sizes" in last:
            cells.append(_percents(last["sizes"][place]["all_zero"], last["sizes"][place]["all_zero_interval"]))
        table.add_row(f"{row['group_size']}{' (this dump)' if row['group_size'] == own else ''}", *cells)
    return table


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
    table = _table(f"what the actor reads, in {unit}", "", unit, "saved, times")
    for name, words in _CORNERS.items():
        factor = actor["factors"][name]
        table.add_row(words, f"{actor['lengths'][name]:,.0f}", "" if factor is None else f"{factor:.2f}")
    return table


def _lengths(actor: Mapping[str, Any]) -> str:
    return (
        f"mean prompt {actor['mean_prompt']:.1f}, mean response {actor['mean_response']:.1f}; 2 rows in "
        f"{100 * actor['groups_with_a_pair']:.1f} % of the groups, all-zero ones repaired, none in groups of hits alone"
    )


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(box=MARKDOWN, title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _words(name: str) -> str:
    return {"sid_missing": "no SID", "sid_malformed": "malformed SID", "sid_unknown": "unknown SID"}.get(name, name)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _percents(share: float, interval: Sequence[float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _interval(value: float | None, interval: Sequence[float | None]) -> str:
    middle, low, high = ("inf" if number is None else f"{number:.4g}" for number in (value, *interval))
    return f"{middle} [{low}, {high}]"
