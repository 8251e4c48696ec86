"""What `recast-report plan` says, and its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recast_analysis.planner.acting import MOST
from recast_analysis.planner.hit_rates import Bounded, Estimate, HitRates
from recast_analysis.planner.next_run import NextRun
from recast_analysis.planner.plan_summary import plan_summary
from recast_analysis.planner.planner_figure import planner_figure
from recast_analysis.planner.study_size import StudyPlan
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import write_json

_NAMED = 5  # constructors of a kind that are named
_POOR_FIT = 0.01


def report(planned: NextRun, partial: tuple[str, ...] = ()) -> Report:
    """Tables and notes of a plan; `partial` are constructors that no kind holds."""
    parts: list[Table | str] = [planned.log.source, *_rates(planned.rates), _sizes(planned), _best(planned), _acting(planned)]
    parts += [*_of_acting(planned, partial), *_comparison(planned), *_costs(planned)]
    parts += [f"warning: {words}" for words in planned.log.notes]
    return Report(plan_summary(planned), parts, lambda: [planner_figure(planned)])


def write_plan(folder: Path, summary: dict[str, Any]) -> None:
    """plan.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", summary)


def _rates(rates: HitRates) -> list[str]:
    if isinstance(rates, Bounded):
        return [
            f"no distribution of hit rates: {rates.reason}. What follows are bounds that hold for any distribution, at 95 % "
            f"(Clopper and Pearson over prompts); mean hit rate {_number(rates.mean)}."
        ]
    a, b = rates.shape
    shape = f"Beta({a:.3g}, {b:.3g})" if np.isfinite(a) else "all alike, as far as the hits tell"
    words = f"hit rates of prompts: {shape}, mean {_number(rates.mean)}; intervals are 95 % profile likelihood"
    if rates.p_value is not None and rates.p_value < _POOR_FIT:
        return [
            words,
            f"warning: a Beta does not fit the hits (p = {rates.p_value:.2g}); trust what is counted, and doubt what is said "
            "of wider groups",
        ]
    return [words]


def _sizes(planned: NextRun) -> Table:
    own, bounds = planned.log.group_size, isinstance(planned.rates, Bounded)
    rows = []
    for plan in planned.sizes:
        name = f"{plan.group_size}{' (this log)' if plan.group_size == own else ''}"
        counts = ["", ""] if plan.counted is None else [_percent(share) for share in plan.counted]
        cells = [_percent(plan.all_zero), counts[0], _percent(plan.all_hit), _percent(plan.learnable), counts[1]]
        cells.append(_count(plan.learnable_groups) if plan.groups else "not one group")
        rows.append((name, *cells, *([] if bounds else [_number(plan.signal_to_noise)])))
    header = ["G", "all-zero %", "counted all-zero", "all-hit %", "learnable %", "counted learnable", "learnable groups"]
    header += [] if bounds else ["signal to noise"]
    note = (
        f"Groups of {planned.question.rollouts:,} rollouts. Counted: from the log's own rollouts where they hold G of a "
        "prompt, without a model. Learnable: a hit and a miss."
    )
    if not bounds:
        note += " Signal to noise: of RLOO's gradient from all of them along a logit of hits that prompts share."
    return Table("groups at any size", header, rows, note=note)


def _best(planned: NextRun) -> str:
    words = "best G: 2 for most learnable groups (so it is for any hit rates: their share is concave in G)"
    if planned.width is None or planned.whole is None:
        return f"{words}; for most signal to noise it cannot be told."
    if planned.width.value is not None and planned.width.value >= planned.question.rollouts:
        best = f"the widest, since the hits do not tell prompts apart [{planned.width.low:.1f} and more]"
    else:
        end = "any" if planned.width.high >= planned.question.rollouts else f"{planned.width.high:.1f}"
        best = f"{planned.whole} [{planned.width.low:.1f}, {end}]"
    return (
        f"{words}; {best} for most signal to noise, whatever the budget. The second counts one direction, to make hits "
        "likelier on all prompts alike: the more prompts differ, the smaller it is. Where each item has a gradient of its own, "
        "wider groups pay more than this says."
    )


def _acting(planned: NextRun) -> Table:
    rows = []
    for one in planned.acting:
        names, more = one.kind.names[:_NAMED], len(one.kind.names) - _NAMED
        named = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        shares = [_percent(one.groups), _percent(one.prompts)]
        rows.append((one.kind.words, named, *shares, _count(one.first, "any number"), _count(one.half), _count(one.most)))
    header = ("acts on", "constructors", "% of groups", "% of prompts", "first signal", "half the prompts", "90 % of prompts")
    note = (
        f"At G = {planned.acting_size}. % of prompts: that have had a signal once {planned.question.rollouts:,} rollouts are "
        f"spent evenly on the {planned.log.prompts:,} prompts of the log. Rollouts to the first signal of a run, on average; "
        "then rollouts of each prompt until half of the prompts, or 90 % of them, have had one."
    )
    return Table("which signal acts where", header, rows, words=header[:2], note=note)


def _of_acting(planned: NextRun, partial: tuple[str, ...]) -> list[str]:
    words = []
    if partial:
        words.append(f"not in the table, since they read some rows of a group only: {', '.join(partial)}")
    if planned.log.has_target is False:
        words.append("warning: the first rows name no target, so nothing here can act by an anchor")
    return words


def _comparison(planned: NextRun) -> list[Table | str]:
    if isinstance(planned.study, str):
        return [f"prompts and seeds: cannot be told. {planned.study}"]
    found = planned.study
    known = found.scatter is not None
    rows = []
    for row in found.rows:
        bear = "" if row.at_most_scatter is None else f"{100 * row.at_most_scatter:.3g} %"
        rows.append((str(row.seeds), _count(row.prompts, "no number"), bear))
    header = ("seeds", "prompts" if known else "prompts, if seeds do not scatter", "scatter that they bear, at most")
    title = f"prompts and seeds to find {100 * found.effect:g} % of {_number(found.base)} with 80 % power"
    return [Table(title, header, rows, note=_of_comparison()), _of_seeds(found)]


def _of_comparison() -> str:
    return (
        "Both methods with the same seeds and prompts, one draw a prompt, judged by the two-way interval over seeds and "
        "prompts (recast_analysis.measures.two_way) at 5 %. One seed tells two checkpoints apart, not two methods. Greedy hits "
        "that come out the same with every seed need the prompts of the first row, however many seeds."
    )


def _of_seeds(found: StudyPlan) -> str:
    if found.scatter is None:
        return (
            "seeds: one log says nothing of how a difference scatters over seeds. The prompts above are the fewest there can "
            "be; give --scatter (relative standard deviation of the difference), or logs of other seeds with --replicate."
        )
    share = found.scatter.estimate
    if share.low == share.high:
        return f"seeds scatter by {100 * share.low:.3g} %, {found.scatter.source}"
    return (
        f"seeds scatter by {_percent(share)} %, {found.scatter.source}; the prompts above are for the first of these, and "
        "their intervals do not hold its chance: with few logs plan for more seeds"
    )


def _costs(planned: NextRun) -> list[Table | str]:
    lengths = planned.question.lengths
    if lengths is None:
        return ["tokens: the lengths of prompts and responses are not both known; give --prompt-tokens and --response-tokens"]
    rows = [
        (
            str(cost.group_size),
            *(f"{value:,.0f}" for value in (cost.rollouts, cost.all_repeated, cost.all_shared)),
            _count(cost.pair_repeated),
            _count(cost.pair_shared),
        )
        for cost in planned.costs
    ]
    header = ("G", "drawn", "all rows, prompt repeated", "all rows, shared", "2 rows, prompt repeated", "2 rows, shared")
    note = (
        f"Mean prompt {lengths.prompt:,.1f}, mean response {lengths.response:,.1f} {lengths.unit}. Drawn: prompts read once a "
        "group. 2 rows: of every group but those of hits alone, repaired where needed."
    )
    return [
        Table(
            f"{lengths.unit} for {planned.question.rollouts:,} rollouts: drawn, and read by the actor", header, rows, note=note
        )
    ]


def _percent(share: Estimate | None) -> str:
    return _shown(share, lambda value: f"{100 * value:.1f}")


def _number(value: Estimate | None) -> str:
    return _shown(value, lambda number: f"{number:.3g}")


def _count(value: Estimate | None, beyond: str = f"over {MOST:,}") -> str:
    return _shown(value, lambda number: f"{number:,.0f}" if np.isfinite(number) else beyond)


def _shown(value: Estimate | None, form: Callable[[float], str]) -> str:
    """ "12 [10, 15]", "10 to 15" of bounds, and "12" of what is known."""
    if value is None:
        return "cannot be told"
    low, high = form(value.low), form(value.high)
    if value.value is None:
        return low if low == high else f"{low} to {high}"
    return form(value.value) if value.low == value.high else f"{form(value.value)} [{low}, {high}]"
