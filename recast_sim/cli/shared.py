"""What every command does with its folder and its result."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from recast_sim.commandline import Common

WIDTH = 360  # of the widest table; a narrower terminal wraps its lines, a file keeps them whole
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def folder(command: Common, name: str) -> Path:
    """The command's --out, or a new folder below runs/ that is named after the command and the time."""
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def finish(command: Common, result: Any, show: Callable[[Console], None]) -> None:
    """Print the result: as JSON on request, else `show`, then where run and figure lie."""
    if command.json:
        print(json.dumps(result, allow_nan=False))
        return
    console = Console(width=max(WIDTH, Console().width))
    show(console)
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and key in result:
            console.print(f"{key}: {result[key]}", highlight=False, soft_wrap=True)
