"""Commands, tables and figures in a notebook: run a command line of the project, show what it found.

    from recast_analysis.notebook import run
    finished = run("recast-sim gradients --constructors grpo recast")
    finished.tables()
    finished.figure()

Tables become Markdown and figures PNGs of few colours, so that a notebook with its outputs stays small under version control.
"""

import importlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from recast_sim.plugins import for_workers
from recast_sim.runs import write_text

SCRATCH = tempfile.TemporaryDirectory(prefix="recast-notebook-")  # goes away with the kernel
_PROGRAMS = {"recast-sim": "recast_sim.cli", "recast-train": "recast_train.cli", "recast-report": "recast_analysis.cli"}
_WIDTH = 1100  # pixels of a picture
_TERMINAL = ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS")  # set by a kernel: a command would print escapes, or cut its tables
_OF_THE_MACHINE = ("run: ", "figure: ", "seconds: ", "next: ")  # lines that no second run repeats: they hold paths


@dataclass(frozen=True, repr=False)
class Markdown:
    """Tables that a notebook renders."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "<table>"  # stored beside the text itself, so it stays short


@dataclass(frozen=True, repr=False)
class Picture:
    """A PNG that a notebook shows."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return "<picture>"


class CommandError(RuntimeError):
    """A command that failed; the message is what it said."""


@dataclass(frozen=True)
class Finished:
    """A finished command: the folder of its results, and what it printed."""

    folder: Path
    text: str

    def tables(self) -> Markdown:
        """What the command printed, without the lines that no second run repeats."""
        return Markdown(as_markdown(self.text))

    def figure(self, name: str = "figure") -> Picture:
        """The figure that the command drew."""
        return Picture(_small(Image.open(self.folder / f"{name}.png")))


def run(line: str) -> Finished:
    """Run a command line as typed in the current folder; its results go to a folder that lives as long as the kernel.

    The command loads what this kernel has: plug-ins, and cells that registered a constructor.

    Raises:
        CommandError: the command failed, or is none of this project's.
        PluginError: a constructor whose cell is not known any more.
    """
    program, *arguments = shlex.split(line)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name)) / "run"
    own = [word for plugin in for_workers(Path(SCRATCH.name), write_text) for word in ("--plugin", plugin.name)]
    out = ["--out", str(folder)] if _has_out(program, arguments) else []
    return Finished(folder, _call(program, [*arguments, *own, *out]))


def show(figure: Figure) -> Picture:
    """A figure drawn in the notebook, as a small picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return Picture(_small(Image.open(buffer)))


def table(rows: Sequence[Mapping[str, Any]]) -> Markdown:
    """A Markdown table of rows with the same keys; floats with three digits."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def as_markdown(text: str) -> str:
    """Printed tables without their padding, each set off by empty lines, and without lines that no second run repeats."""
    lines = [re.sub(r" {2,}", " ", line.strip()) for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(_OF_THE_MACHINE)]
    blocks = [list(block) for _, block in itertools.groupby(kept, lambda line: line.startswith("|"))]
    return "\n\n".join(("\n" if block[0].startswith("|") else "  \n").join(block) for block in blocks)


def _has_out(program: str, arguments: list[str]) -> bool:
    """Whether the command takes a folder for its results; what it does not know it refuses itself."""
    if program not in _PROGRAMS:
        raise CommandError(f"{program}: not a command of this project; choose from {', '.join(_PROGRAMS)}")
    command = importlib.import_module(_PROGRAMS[program]).COMMANDS.get(next(iter(arguments), ""))
    return command is not None and "out" in {field.name for field in fields(command.load()[0])}


def _call(program: str, arguments: list[str]) -> str:
    """Output of a command in an interpreter of its own: it sets threads and starts processes as on the command line."""
    code = f"from {_PROGRAMS[program]} import main; main()"
    kept = {name: value for name, value in os.environ.items() if name not in _TERMINAL}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=kept, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(done.stderr.strip())
    return done.stdout


def _small(image: Image.Image) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # of Pillow's methods the one that keeps the colours of thin lines
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
