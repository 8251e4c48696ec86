"""Command lines: a command is a dataclass whose fields are its options; recipes; progress."""

from recast_sim.commandline.command_options import (
    WORKERS,
    Common,
    Flag,
    OptionalFile,
    PartOf,
    Paths,
    Positional,
    Printing,
    Repeated,
    Sweeping,
)
from recast_sim.commandline.progress_bars import ProgressLines, progress
from recast_sim.commandline.running import Command, run_command

__all__ = [
    "WORKERS",
    "Command",
    "Common",
    "Flag",
    "OptionalFile",
    "PartOf",
    "Paths",
    "Positional",
    "Printing",
    "ProgressLines",
    "Repeated",
    "Sweeping",
    "progress",
    "run_command",
]
