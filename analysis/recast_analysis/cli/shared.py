"""What the commands of `recast-report` share."""

from dataclasses import dataclass
from pathlib import Path

from recast_sim.commandline import Printing
from recast_sim.runs import RunError


@dataclass(frozen=True, kw_only=True)
class Reporting(Printing):
    """Options of a command that prints a report and keeps it where it is told to.

    Attributes:
        out: folder for the report's figures and numbers; default none, they are printed only.
    """

    out: Path | None = None


def named(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if not runs:
        raise RunError("runs: none given; name at least one run folder")
    return runs
