"""`recast-sim plan`: how many worlds and held-out prompts a comparison needs, before it is run."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat

from recast_sim.commandline import Positional, Printing
from recast_sim.runs import RunError
from recast_sim.runs.reader import fits_its_kind


@dataclass(frozen=True, kw_only=True)
class Plan(Printing):
    """Worlds and prompts that a difference needs for 80 % power, from a finished pilot.

    Attributes:
        run: folder of a finished `recast-sim budget` or quickstart with the methods in question.
        effect: difference of final scores to be seen: relative (0.1 is 10 %), in nats for a log-likelihood.
        against: the method that the others are held against.
    """

    run: Positional[Path | None] = None
    effect: PositiveFloat = 0.1
    against: str = "grpo"


def plan(command: Plan) -> None:
    from recast_analysis.reports.plan import report as plan_report
    from recast_analysis.terminal import finish

    if command.run is None:
        raise RunError("run: missing; give the folder of a finished pilot, for example of recast-sim quickstart")
    with fits_its_kind(command.run):
        try:
            found = plan_report(command.run, command.effect, command.against)
        except ValueError as error:
            raise RunError(str(error)) from error
    finish(command, found.summary, found)
