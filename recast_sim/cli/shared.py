"""What the commands of `recast-sim` share."""

from datetime import datetime
from pathlib import Path

from recast_sim.commandline import Common

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def folder(command: Common, name: str) -> Path:
    """The command's --out, or a new folder below runs/ that is named after the command and the time."""
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
