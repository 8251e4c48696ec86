"""`recast-report tables`: what the command of a finished run printed, again."""

from dataclasses import dataclass

from recast_analysis.cli.shared import named
from recast_analysis.reports.run_kinds import run_report
from recast_analysis.terminal import print_report, terminal
from recast_sim.commandline import Paths, Printing


@dataclass(frozen=True)
class Tables(Printing):
    """What the command of a finished run printed, again.

    Attributes:
        runs: run folders.
    """

    runs: Paths = ()


def tables(command: Tables) -> None:
    for path in named(command.runs):
        print_report(run_report(path), terminal(command.wide))
