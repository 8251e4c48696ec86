"""Configs and command lines: a TOML file, then the dataclass, then command-line overrides; progress bars. Alone imports tyro.

A file is validated by pydantic against the dataclass; an unknown key fails with its path.
"""

import contextlib
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
OptionalFile = tyro.conf.Positional[Path | None]
Paths = tyro.conf.Positional[tuple[Path, ...]]
Nested = tyro.conf.arg(name="")  # drops the prefix of this field alone: `config.rl.steps` becomes `--rl.steps`
Positional = tyro.conf.Positional
FileOnly = tyro.conf.Suppress  # a field that a config file sets and no option does


class ConfigError(ValueError):
    """A config file or command line that does not fit; the message names file and key path, or the option."""


@dataclass(frozen=True)
class Common:
    """Options of every command.

    Attributes:
        seed: seed of everything random.
        out: folder for the results; default a new one under runs/.
        json: print the final figures as one JSON object on stdout.
    """

    seed: int = 0
    out: Path | None = None
    json: Flag = False


@dataclass(frozen=True)
class Sweeping(Common):
    """Options of a command that runs a sweep.

    Attributes:
        workers: processes at once; they change no number.
        engine: local processes, or Ray (a running cluster if there is one).
        resume: go on with the sweep in --out.
    """

    workers: int = min(2, os.cpu_count() or 1)
    engine: Literal["local", "ray"] = "local"
    resume: Flag = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers: {self.workers} must be at least 1")


def load_config(cls: type[T], path: Path) -> T:
    """Read a TOML file into a (frozen, nested) dataclass.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value that does not fit.
    """
    try:
        with path.open("rb") as file:
            return TypeAdapter(cls).validate_python(tomllib.load(file))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from error


def override(config: T, changes: Mapping[str, Any]) -> T:
    """A dataclass with other values at dotted keys, for example {"training.signal.w_minus": 0.3}.

    Raises:
        ConfigError: an unknown key, a table in place of one, or a value that does not fit.
    """
    table = asdict(config)  # type: ignore[call-overload]
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = table
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise ConfigError(f"key {key!r}: {type(config).__name__} has none; mend its name")
        if isinstance(inner[last], dict):  # `sft.steps = 3` without quotes: a table would reset what it does not name
            raise ConfigError(f'key {key!r}: is a table; set its keys one by one, each in quotes, as in "{key}.NAME" = VALUE')
        inner[last] = value
    try:
        return TypeAdapter(type(config)).validate_python(table)
    except ValidationError as error:
        raise ConfigError(f"{type(config).__name__}: {_first_problem(error)}") from error


def dotted_keys(cls: type[Any], *parts: str, without: Collection[str] = ()) -> dict[str, str]:
    """The fields of a config, and those of its nested configs `parts`, by name: the dotted key that `override` takes."""
    nested = {f.name: f.default_factory for f in fields(cls) if f.name in parts}
    own = {f.name: f.name for f in fields(cls) if f.name not in (*parts, *without)}
    return own | {f.name: f"{part}.{f.name}" for part, config in nested.items() for f in fields(config)}  # type: ignore[arg-type]


def parse_line(line: str, keys: Collection[str]) -> tuple[str, dict[str, Any]]:
    """First word of "word key=value ..." and its values, read as JSON where they are JSON, else as text.

    Raises:
        ConfigError: an empty line, a word that is no key=value, a key that is not among `keys`, or one given twice.
    """
    words = line.split()
    if not words:
        raise ConfigError("method: empty; write a constructor's name, for example 'recast w_minus=0.3'")
    changes: dict[str, Any] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in keys:
            raise ConfigError(f"method {line!r}: {word!r} must be key=value with a key of the signal, objective or training")
        if key in changes:
            raise ConfigError(f"method {line!r}: {key!r} is given twice; remove one")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return words[0], changes


def run_command(
    prog: str,
    about: str,
    commands: Mapping[str, tuple[type[Any], Callable[[Any], None]]],
    errors: tuple[type[Exception], ...],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `PROG COMMAND [options]`, run the command's handler, and return the exit status.

    A command is a dataclass; where it has a field `config`, its first argument is a TOML file whose values the options
    override. Expected errors become one line on stderr and status 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview(prog, about, commands))
            return 0 if arguments else 2
        if arguments[0] not in commands:
            raise ConfigError(f"command: {arguments[0]!r} is unknown; choose from {', '.join(commands)}")
        cls, handler = commands[arguments[0]]
        handler(_parse(f"{prog} {arguments[0]}", cls, arguments[1:]))
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        sys.stderr.close()
        return 1
    except (ConfigError, *errors) as error:
        print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; what was written is kept", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr, with rate and time left; call the yielded function with a label, done and total."""
    clocks = (_RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *clocks, console=Console(stderr=True)
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        yield report


class _RateColumn(ProgressColumn):
    """Steps a second, three digits; nothing before the second step."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.3g}/s", style="progress.data.speed")


def _parse(prog: str, cls: type[T], arguments: list[str]) -> T:
    config = next((f for f in fields(cls) if f.name == "config"), None)  # type: ignore[arg-type]
    default: Any = None
    if config is not None and arguments and not arguments[0].startswith("-"):
        kind = config.metadata["type"]
        default = cls(file=Path(arguments[0]), config=load_config(kind, Path(arguments[0])))  # type: ignore[call-arg]
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            return tyro.cli(cls, prog=prog, args=arguments, **({} if default is None else {"default": default}))
    except SystemExit as stop:
        if stop.code == 0:
            raise
        words = " ".join(caught.getvalue().translate({ord(c): " " for c in "╭╮╰╯│─"}).split())
        words = re.sub(r"^(Value error |Parsing error |Unrecognized options )+|^-+ | -+(?= )| Argument helptext: .*", "", words)
        words = re.sub(r"^Error parsing [\w.-]+: (?=\w+Config\.)| For full helptext, (run|see) .* --help$", "", words)
        raise ConfigError(f"{words} (see {prog} --help)") from None


def _overview(prog: str, about: str, commands: Mapping[str, tuple[type[Any], Callable[[Any], None]]]) -> str:
    lines = [f"  {name:<12} {(cls.__doc__ or '').strip().splitlines()[0]}" for name, (cls, _) in commands.items()]
    return "\n".join([f"usage: {prog} COMMAND [options]", "", about, "", "commands:", *lines, "", f"{prog} COMMAND --help"])


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {where!r}; remove it or mend its name"
    message = problem["msg"].removeprefix("Value error, ")
    return f"key {where!r}: {message}" if where else message
