"""A command line called within this process: what a subprocess shows, without the seconds that importing torch takes."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from recast_sim.commandline import Command


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def called(main: Callable[[], None], *arguments: object) -> Done:
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["command", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


class Given(Command):
    """A command that is at hand, not imported."""

    def __init__(self, options: type[Any], handler: Callable[[Any], None]) -> None:
        self.__dict__ |= {"_pair": (options, handler)}

    def load(self) -> tuple[type[Any], Callable[[Any], None]]:
        return self._pair

    def about(self) -> str:
        return (self._pair[0].__doc__ or "").partition("\n")[0]
