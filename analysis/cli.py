"""`recast-report`: tables and figures of run folders."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from analysis.agreement import print_agreement, summarise_agreement
from analysis.show import draw_run, run_summary, runs_table
from analysis.tables import draw_again, print_again
from recast_sim.configio import Common, Flag, Paths, Positional, run_command
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


def main() -> None:
    commands = {"show": (Show, show), "tables": (Tables, tables), "agree": (Agree, agree)}
    sys.exit(run_command("recast-report", "Tables and figures of run folders.", commands, (RunError, OSError)))
