"""`recast-sim constructors`: what is registered, read from the code."""

from dataclasses import dataclass

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from recast_sim.cli.shared import finish
from recast_sim.commandline import Common
from recast_sim.signal import Constructor, list_constructors


@dataclass(frozen=True)
class Constructors(Common):
    """Every registered constructor: update width, what an all-zero group yields, on or off policy, needs, source."""


def constructors(command: Constructors) -> None:
    rows = [_row(constructor) for constructor in list_constructors()]
    finish(command, rows, lambda console: _print(rows, console))


def _row(constructor: Constructor) -> dict[str, str]:
    return {
        "name": constructor.name,
        "update_width": constructor.width,
        "all_zero": constructor.all_zero,
        "policy": "off" if constructor.off_policy else "on",
        "rollouts": "needed" if constructor.rollouts else "none",
        "needs": ", ".join(constructor.inputs),
        "source": constructor.source,
        "summary": (constructor.apply.__doc__ or "").strip().splitlines()[0],
    }


def _print(rows: list[dict[str, str]], console: Console) -> None:
    table = Table(box=MARKDOWN, title="constructors; off policy: rows that no policy sampled may reach the actor")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
