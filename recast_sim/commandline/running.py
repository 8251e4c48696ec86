"""A command line: its commands are imported when they are asked for, and every error of ours becomes one line."""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recast_sim.commandline.parser import option_parser, parsed
from recast_sim.configio import ConfigError
from recast_sim.errors import RecastError
from recast_sim.plugins import PluginError, load_plugin
from recast_sim.printable import printable

_LETTERS = 2000  # of an error
_DISTRIBUTION = "recast-rl"
_EXTRAS = dict.fromkeys(("accelerate", "sklearn", "transformers"), "train") | {"trl": "trl", "verl": "verl", "ray": "sweep"}
_EXTRAS["shtab"] = "completion"


@dataclass(frozen=True)
class Command:
    """A command that is imported when it is asked for: torch alone takes longer to load than a list of commands to read.

    Attributes:
        module: where it is.
        options: the dataclass of its options, whose first line of documentation tells what it does.
        handler: the function that runs it, given those.
    """

    module: str
    options: str
    handler: str

    def load(self) -> tuple[type[Any], Callable[[Any], None]]:
        module = importlib.import_module(self.module)
        return getattr(module, self.options), getattr(module, self.handler)

    def about(self) -> str:
        """The first line of the options' docstring, read from the source."""
        spec = importlib.util.find_spec(self.module)
        assert spec is not None
        assert spec.origin is not None
        parsed = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        (cls,) = (node for node in parsed.body if isinstance(node, ast.ClassDef) and node.name == self.options)
        return (ast.get_docstring(cls) or "").partition("\n")[0]


def run_command(prog: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Parse `PROG COMMAND [options]`, run the command's handler, and return the exit status.

    A command is a dataclass. Where it has a field `config`, that is read from the TOML file in the field `file`, if any, and
    options override its values. Options take numbers, words and tuples of them; other fields are set by a file alone.
    Errors of ours and of the system become one line on stderr and status 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview(prog, about, commands))
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(f"{prog} {version(_DISTRIBUTION)}")
            return 0
        if arguments[0] == "--completion":
            print(_completion(prog, commands, arguments[1:]))
            return 0
        if arguments[0] not in commands:
            raise ConfigError(f"command: {arguments[0]!r} is unknown; choose from {', '.join(commands)}")
        cls, handler = commands[arguments[0]].load()
        _load_plugins(arguments[1:])
        handler(parsed(f"{prog} {arguments[0]}", cls, arguments[1:]))
        sys.stdout.flush()  # here, where a full disk is an error of ours, not at the interpreter's end
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        sys.stderr.close()
        return 1
    except (RecastError, OSError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is None and error.strerror:  # files are named by who writes them
            said = f"output: cannot be written: {error.strerror}; send it elsewhere"
            _drop_output()
        _say(f"{prog}: error: {printable(said, _LETTERS)}")
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = f"pip install '{_DISTRIBUTION}[{_EXTRAS[package]}]'"
        _say(f"{prog}: error: {package} is not installed, which this command needs; {extra}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        said = printable(" ".join(str(error).split()))
        _say(f"{prog}: error: out of memory ({said}); make the run smaller")
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; what was written is kept", file=sys.stderr)
        return 130
    return 0


def _say(words: str) -> None:
    """One line on stderr; on a terminal, or where COLUMNS is set, lines that break between words."""
    if sys.stderr.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        width = max(shutil.get_terminal_size().columns, 20)
        words = textwrap.fill(words, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(words, file=sys.stderr)


def _completion(prog: str, commands: Mapping[str, Command], shell: Sequence[str]) -> str:
    """A shell's script that completes commands and options. Raises ConfigError for a shell that is not served."""
    import shtab

    if len(shell) != 1 or shell[0] not in shtab.SUPPORTED_SHELLS:
        raise ConfigError(f"--completion: {' '.join(shell)!r} is no shell; choose from {', '.join(shtab.SUPPORTED_SHELLS)}")
    parser = argparse.ArgumentParser(prog)
    parts = parser.add_subparsers()
    for name, command in commands.items():
        own = option_parser(f"{prog} {name}", command.load()[0])
        parts.add_parser(name, parents=[own], add_help=False, help=command.about())
    return shtab.complete(parser, shell=shell[0])


def _load_plugins(arguments: Sequence[str]) -> None:
    """Load every --plugin before anything is parsed: a file or an option may name what it registers."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--plugin", action="append", default=[], nargs="?")
    for name in filter(None, finder.parse_known_args(list(arguments))[0].plugin):
        try:
            load_plugin(name)
        except PluginError as error:
            raise ConfigError(f"--plugin: {error}") from error


def _drop_output() -> None:
    """What stdout still holds cannot be written: without this the interpreter would try again, and fail, when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _overview(prog: str, about: str, commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<12} {command.about()}" for name, command in commands.items()]
    return "\n".join([f"usage: {prog} COMMAND [options]", "", about, "", "commands:", *lines, "", f"{prog} COMMAND --help"])
