"""Options: the fields of a command's dataclass, the marks that say how they are given, and those that commands share."""

import os
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from recast_sim.configio import Checked
from recast_sim.field_types import Seed, Workers

T = TypeVar("T")
WORKERS = min(2, os.cpu_count() or 1)


class Mark(Enum):
    FLAG = auto()
    POSITIONAL = auto()
    REPEATED = auto()


Flag = Annotated[bool, Mark.FLAG]  # false unless given
Positional = Annotated[T, Mark.POSITIONAL]
OptionalFile = Positional[Path | None]
Repeated = Annotated[tuple[T, ...], Mark.REPEATED]  # an option that may be given again and again
Paths = Positional[tuple[Path, ...]]


@dataclass(frozen=True)
class PartOf:
    """Marks a command's `config` whose file is of a larger kind: its fields are read and checked, the config's own are kept."""

    whole: type[Any]


@dataclass(frozen=True, kw_only=True)
class Printing(Checked):
    """Options of every command.

    Attributes:
        json: print the final figures as JSON on stdout, and nothing else.
        wide: print every table whole, however wide the terminal is.
        plugin: a .py file or a module that registers constructors of your own; may be given again.
    """

    json: Flag = False
    wide: Flag = False
    plugin: Repeated[str] = ()


@dataclass(frozen=True, kw_only=True)
class Common(Printing):
    """Options of a command that writes a folder of results.

    Attributes:
        seed: seed of everything random.
        out: folder for the results; default a new one under runs/.
    """

    seed: Seed = 0
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sweeping(Common):
    """Options of a command that runs a sweep.

    Attributes:
        workers: processes at once; they change no number.
        engine: local processes, or Ray (a running cluster if there is one).
        resume: go on with the sweep in --out.
    """

    workers: Workers = WORKERS
    engine: Literal["local", "ray"] = "local"
    resume: Flag = False
