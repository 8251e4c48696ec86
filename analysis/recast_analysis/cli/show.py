"""`recast-report show`: what run folders are, and where they ended."""

import json
import sys
from dataclasses import dataclass

from recast_analysis.cli.shared import named
from recast_analysis.reports.report import Report
from recast_analysis.show import readable_runs, runs_table
from recast_analysis.terminal import print_report, terminal
from recast_sim.commandline import Paths, Printing
from recast_sim.printable import printable
from recast_sim.runs import find_runs


@dataclass(frozen=True)
class Show(Printing):
    """Show run folders: what they are, and where they ended.

    Attributes:
        runs: run folders, or folders that hold some.
    """

    runs: Paths = ()


def show(command: Show) -> None:
    summaries, unread = readable_runs(find_runs(named(command.runs)))
    if command.json:
        print(json.dumps(summaries))
        for words in unread:
            print(printable(words), file=sys.stderr)
    else:
        print_report(Report({}, [runs_table(summaries), *unread]), terminal(command.wide))
