"""What every command does with its folder and its result."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from recast_sim.configio import Common
from recast_sim.runs import RunWriter


def folder(command: Common, name: str) -> Path:
    """The command's --out, or a new folder below runs/ that is named after the command and the time."""
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def open_run(root: Path, resume: bool, kind: str, config: dict[str, Any], seed: int) -> RunWriter:
    """A new run folder, or with `resume` the one that is there."""
    if resume and (root / "manifest.json").exists():
        return RunWriter.resume(root, config, seed)
    return RunWriter.create(root, kind, config, seed)


def finish(command: Common, result: Any, show: Callable[[Console], None]) -> None:
    """Print the result: as JSON on request, else `show`, then where run and figure lie."""
    if command.json:
        print(json.dumps(result, allow_nan=False))
        return
    console = Console(width=max(165, Console().width))
    show(console)
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and key in result:
            console.print(f"{key}: {result[key]}", highlight=False, soft_wrap=True)
