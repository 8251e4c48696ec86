"""`recast-report`: tables and figures of run folders."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.agreement import print_agreement, summarise_agreement
from analysis.audit.errors import AuditError
from analysis.audit.figure import draw_audit
from analysis.audit.groups import read_groups
from analysis.audit.measure import steps_table, summarise_audit
from analysis.audit.report import print_audit, write_audit
from analysis.show import draw_run, run_summary, runs_table
from analysis.tables import draw_again, print_again
from recast_sim.configio import Common, Flag, Paths, Positional, progress, run_command
from recast_sim.runs import RunError, find_runs, read_run


@dataclass(frozen=True)
class Show(Common):
    """Show run folders: what they are, where they ended, figures on request.

    Attributes:
        runs: run folders, or folders that hold some.
        figures: also draw each run's regimes and Pass@1, below --out (default: the run's own folder).
    """

    runs: Paths = ()
    figures: Flag = False


def show(command: Show) -> None:
    if not command.runs:
        raise RunError("runs: none given; name at least one run folder")
    runs = [read_run(path) for path in find_runs(command.runs)]
    summaries = [run_summary(run) for run in runs]
    if command.json:
        print(json.dumps(summaries))
    else:
        Console(width=max(200, Console().width)).print(runs_table(summaries))
    for run in runs if command.figures else []:
        if (picture := draw_run(run, command.out or run.path)) is not None:
            print(f"figure: {picture}", file=sys.stderr)


@dataclass(frozen=True)
class Tables(Common):
    """What the command of a finished run printed and drew, again.

    Attributes:
        runs: folders of quickstart, budget, map, claims, gradients or real runs.
        figures: also draw the figures anew.
    """

    runs: Paths = ()
    figures: Flag = False


def tables(command: Tables) -> None:
    if not command.runs:
        raise RunError("runs: none given; name at least one run folder")
    for path in command.runs:
        print_again(path, Console(width=max(360, Console().width)))
        for picture in draw_again(path) if command.figures else []:
            print(f"figure: {picture}", file=sys.stderr)


@dataclass(frozen=True)
class Agree(Common):
    """Hold a real study beside a simulated budget run: does the laboratory predict it?

    Attributes:
        real: folder of `recast-train study`.
        simulated: folder of `recast-sim budget` with settings of the same labels.
    """

    real: Positional[Path] = Path()
    simulated: Positional[Path] = Path()


def agree(command: Agree) -> None:
    summary = summarise_agreement(command.real, command.simulated)
    if command.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        print_agreement(summary, Console(width=max(240, Console().width)))


@dataclass(frozen=True)
class Audit(Common):
    """Audit rollouts that another run dumped: verl's JSON lines, TRL's completions, or a plain table.

    Attributes:
        dumps: files, or folders that hold nothing else; told apart by content.
        hit_above: a reward above it is a hit.
        columns: what a dump's own names do not say, as ROLE=COLUMN: step, group, prompt, completion, reward (a+b adds two),
            target, prompt_tokens, response_tokens.
        items: file of the SIDs that exist: a JSON object of item to SID, or an SID a line.
    """

    dumps: Paths = ()
    hit_above: float = 0.5
    columns: tuple[str, ...] = ()
    items: Path | None = None


def audit(command: Audit) -> None:
    with progress() as report:
        groups = read_groups(command.dumps, command.hit_above, command.columns, command.items, report)
    summary, steps = summarise_audit(groups), steps_table(groups.table)
    if command.out is not None:
        write_audit(command.out, summary, steps, groups.table)
        print(f"figure: {draw_audit(command.out, summary, steps)}", file=sys.stderr)
    if command.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        print_audit(summary, steps, Console(width=max(200, Console().width)))


def main() -> None:
    commands = {"show": (Show, show), "tables": (Tables, tables), "agree": (Agree, agree), "audit": (Audit, audit)}
    about = "Tables and figures of run folders, and of rollouts that other tools dumped."
    sys.exit(run_command("recast-report", about, commands, (RunError, AuditError, OSError)))
