"""`recast-sim constructors`: what is registered, read from the code."""

from dataclasses import dataclass

from recast_sim.commandline import Printing
from recast_sim.signal import Constructor, list_constructors


@dataclass(frozen=True)
class Constructors(Printing):
    """Every constructor: update width, all-zero groups, on or off policy, needs, source."""


def constructors(command: Constructors) -> None:
    from recast_analysis.reports.report import Report, Table
    from recast_analysis.terminal import finish

    rows = [_row(constructor) for constructor in list_constructors()]
    header = [column.replace("_", " ") for column in rows[0]]
    title = "constructors; off policy: rows that no policy sampled may reach the actor"
    table = Table(title, header, [list(row.values()) for row in rows], words=header)
    finish(command, rows, Report({"constructors": rows}, [table]), "recast-sim check recast")


def _row(constructor: Constructor) -> dict[str, str]:
    return {
        "name": constructor.name,
        "update_width": constructor.width,
        "all_zero": constructor.all_zero,
        "credit": "level" if constructor.level_wise else "row",
        "policy": "off" if constructor.off_policy else "on",
        "rollouts": "needed" if constructor.rollouts else "none",
        "needs": ", ".join(constructor.inputs),
        "source": constructor.source,
        "summary": next(iter((constructor.apply.__doc__ or "").strip().splitlines()), ""),
    }
