"""`recast-report compare`: the methods of a real study over one of them."""

from dataclasses import dataclass
from pathlib import Path

from recast_analysis.reports.real.versus import report as versus_report
from recast_analysis.terminal import finish
from recast_sim.commandline import Positional, Printing
from recast_sim.runs import RunError
from recast_sim.runs.reader import fits_its_kind


@dataclass(frozen=True)
class Compare(Printing):
    """Every method of a real study over one of them, on test prompts, with intervals.

    Attributes:
        run: folder of a finished `recast-train study`.
        over: the method that the others are held against, as its table calls it, or "start".
    """

    run: Positional[Path | None] = None
    over: str = "grpo"


def compare(command: Compare) -> None:
    if command.run is None:
        raise RunError("run: missing; give the folder of a finished recast-train study")
    with fits_its_kind(command.run):
        found = versus_report(command.run, command.over)
    finish(command, found.summary, found)
