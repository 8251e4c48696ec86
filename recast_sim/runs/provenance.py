"""Where a result comes from: command, git state, library versions, hardware."""

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from recast_sim.plugins import loaded

_LIBRARIES = ("torch", "numpy", "scipy", "polars", "transformers", "recast-rl")


def provenance() -> dict[str, Any]:
    """The command line, git commit and uncommitted diff of this checkout (None outside one), versions, machine; plug-ins."""
    plugins = [plugin.record() for plugin in loaded()]
    return _of_process() | ({"plugins": plugins} if plugins else {})


@cache
def _of_process() -> dict[str, Any]:
    return {"command": _command(), "git": _git(), "versions": _versions(), "hardware": _hardware()}


def _command() -> str:
    """As typed, the program by its name alone."""
    program, *arguments = sys.argv
    return shlex.join([Path(program).name, *arguments])


def _git() -> dict[str, str] | None:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    return {"commit": _run_git(here, "rev-parse", "HEAD"), "diff": _run_git(here, "diff", "HEAD")}


def _run_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"git failed: {done.stderr.strip()}"


def _versions() -> dict[str, str]:
    installed = {name: _version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **{name: v for name, v in installed.items() if v}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
