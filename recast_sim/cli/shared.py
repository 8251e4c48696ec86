"""What every command does with its folder and its result."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from recast_sim.configio import Common, ConfigError, Flag
from recast_sim.runs import RunWriter
from recast_sim.sweep import Engine

WIDTH = 360  # of the widest table; a narrower terminal wraps its lines, a file keeps them whole
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@dataclass(frozen=True)
class Sweeping(Common):
    """Options of a command that runs a sweep.

    Attributes:
        workers: processes at once; they change no number.
        engine: local processes, or Ray (a running cluster if there is one).
        resume: go on with the sweep in --out.
    """

    workers: int = min(2, os.cpu_count() or 1)
    engine: Engine = "local"
    resume: Flag = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers: {self.workers} must be at least 1")


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
    console = Console(width=max(WIDTH, Console().width))
    show(console)
    for key in ("run", "figure", "seconds"):
        if isinstance(result, dict) and key in result:
            console.print(f"{key}: {result[key]}", highlight=False, soft_wrap=True)
