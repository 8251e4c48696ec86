"""What every command does with its folder and its result."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recast_sim.commandline import Common

if TYPE_CHECKING:
    from recast_analysis.reports.report import Report

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def folder(command: Common, name: str) -> Path:
    """The command's --out, or a new folder below runs/ that is named after the command and the time."""
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def finish(command: Common, result: Any, report: "Report", then: str = "") -> None:
    """Print the result as JSON on request; else its report, where run and figure lie, and the next command."""
    from recast_analysis.terminal import print_report, terminal

    if command.json:
        print(json.dumps(result, allow_nan=False))
        return
    print_report(report, terminal(command.wide))
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and key in result:
            print(f"{key}: {result[key]}")
    if then:
        print("next:", then, *(f"--plugin {name}" for name in command.plugin))
