"""`recast-report tables`: what the command of a finished run printed, again."""

import json
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
    reports = map(run_report, named(command.runs))
    if command.json:
        print(json.dumps([found.summary for found in reports], allow_nan=False))
        return
    for found in reports:
        print_report(found, terminal(command.wide))
