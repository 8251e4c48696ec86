"""What every command does with its folder and its result."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from recast_sim.commandline import Common

if TYPE_CHECKING:
    from recast_analysis.reports.report import Report

WIDTH = 360  # of a result on one line; a narrower terminal wraps it, a file keeps it whole
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def folder(command: Common, name: str) -> Path:
    """The command's --out, or a new folder below runs/ that is named after the command and the time."""
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def finish(command: Common, result: Any, report: "Report | None" = None) -> None:
    """Print the result as JSON on request; else its report, itself where it has none, then where run and figure lie."""
    from recast_analysis.terminal import print_report

    if command.json:
        print(json.dumps(result, allow_nan=False))
        return
    if report is None:
        Console(width=max(WIDTH, Console().width)).print(result)
    else:
        print_report(report)
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and key in result:
            print(f"{key}: {result[key]}")
