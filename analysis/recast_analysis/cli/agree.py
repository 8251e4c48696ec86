"""`recast-report agree`: a real study beside a simulated one."""

from dataclasses import dataclass
from pathlib import Path

from recast_analysis.reports.real.agreement import report as agreement_report
from recast_analysis.terminal import finish
from recast_sim.commandline import Positional, Printing
from recast_sim.runs.reader import fits_its_kind


@dataclass(frozen=True)
class Agree(Printing):
    """Hold a real study beside a simulated budget run: does the laboratory predict it?

    Attributes:
        real: folder of `recast-train study`.
        simulated: folder of `recast-sim budget` with settings of the same labels.
    """

    real: Positional[Path] = Path()
    simulated: Positional[Path] = Path()


def agree(command: Agree) -> None:
    with fits_its_kind(command.real):
        found = agreement_report(command.real, command.simulated)
    finish(command, found.summary, found)
