"""`recast-report plan`: the next run, from the hits that a log of rollouts holds."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from recast_analysis.cli.shared import Reporting
from recast_analysis.planner.acting import kinds
from recast_analysis.planner.hit_rates import Estimate
from recast_analysis.planner.next_run import Question, next_run
from recast_analysis.planner.plan_error import PlanError
from recast_analysis.planner.planner_report import report as planner_report
from recast_analysis.planner.planner_report import write_plan
from recast_analysis.planner.prompt_hits import PromptHits, Window, read_prompt_hits
from recast_analysis.planner.study_size import Scatter, scatter_between
from recast_analysis.planner.token_costs import lengths_of
from recast_analysis.terminal import finish
from recast_sim.commandline import Paths, Repeated, progress


@dataclass(frozen=True)
class PlanLogs(Reporting):
    """Plan the next run from a log of rollouts: G, signal, prompts and seeds, tokens.

    Attributes:
        logs: files or folders of one dump, as `recast-report audit` takes them, or a run folder of ours with groups.
        hit_above: a reward above it is a hit.
        columns: what a dump's own names do not say, as ROLE=COLUMN; see `recast-report audit --help`.
        window: of the steps: all, or the first or the last quarter.
        rollouts: the budget to plan for; default as many as the log has.
        effect: relative difference of hit rates that a comparison is to find.
        base: hit rate of the metric that is compared, such as greedy Pass@1; default the log's.
        scatter: standard deviation over seeds of the difference between two methods, relative to the hit rate.
        replicate: log of the same recipe with another seed, to measure the scatter; may be given again.
        prompt_tokens: mean length of a prompt; default the log's.
        response_tokens: mean length of a response; default the log's.
    """

    logs: Paths = ()
    hit_above: float = 0.5
    columns: tuple[str, ...] = ()
    window: Window = "all"
    rollouts: PositiveInt | None = None
    effect: PositiveFloat = 0.1
    base: Annotated[float, Field(gt=0, lt=1)] | None = None
    scatter: PositiveFloat | None = None
    replicate: Repeated[Path] = ()
    prompt_tokens: PositiveFloat | None = None
    response_tokens: PositiveFloat | None = None


def plan(command: PlanLogs) -> None:
    if not command.logs:
        raise PlanError("logs: none given; name a dump of rollouts, or a run folder with groups")
    if command.scatter is not None and command.replicate:
        raise PlanError("scatter: given, and logs to measure it by --replicate too; give one of them")
    log, *others = [_read(command, paths) for paths in (command.logs, *((path,) for path in command.replicate))]
    scatter = scatter_between([log, *others]) if others else None
    if command.scatter is not None:
        scatter = Scatter(Estimate(command.scatter, command.scatter, command.scatter), "as given")
    lengths = lengths_of(log, command.prompt_tokens, command.response_tokens)
    question = Question(command.rollouts or log.rollouts, command.effect, command.base, scatter, lengths)
    listed, partial = kinds()
    found = planner_report(next_run(log, question, listed), partial)
    if command.out is not None:
        write_plan(command.out, found.summary)
        print("figure:", *found.save_figures(command.out), file=sys.stderr)
    finish(command, found.summary, found, "recast-sim check recast")


def _read(command: PlanLogs, paths: tuple[Path, ...]) -> PromptHits:
    with progress() as report:
        return read_prompt_hits(paths, command.hit_above, command.columns, command.window, report)
