"""Command lines: a command is a dataclass whose fields are its options; progress bars."""

import argparse
import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from enum import Enum, auto
from importlib.metadata import version
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError
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

from recast_sim.configio import Checked, ConfigError, first_fault, load_config, replaced, words
from recast_sim.errors import RecastError
from recast_sim.field_types import Seed, Workers, number_of
from recast_sim.plugins import PluginError, load_plugin
from recast_sim.printable import printable
from recast_sim.recipe_files import recipe_file

T = TypeVar("T")
SECONDS = 30  # between two lines of progress without a terminal
WORKERS = min(2, os.cpu_count() or 1)
_LETTERS = 2000  # of an error
_CHOICES = 60  # letters of choices that stand behind an option's name
_DISTRIBUTION = "recast-rl"
_EXTRAS = dict.fromkeys(("accelerate", "sklearn", "transformers"), "train") | {"trl": "trl", "verl": "verl", "ray": "sweep"}


class _Mark(Enum):
    FLAG = auto()
    POSITIONAL = auto()
    REPEATED = auto()


Flag = Annotated[bool, _Mark.FLAG]  # false unless given
Positional = Annotated[T, _Mark.POSITIONAL]
OptionalFile = Positional[Path | None]
Repeated = Annotated[tuple[T, ...], _Mark.REPEATED]  # an option that may be given again and again
Paths = Positional[tuple[Path, ...]]


@dataclass(frozen=True)
class PartOf:
    """Marks a command's `config` whose file is of a larger kind: its fields are read and checked, the config's own are kept."""

    whole: type[Any]


@dataclass(frozen=True, kw_only=True)
class Common(Checked):
    """Options of every command.

    Attributes:
        seed: seed of everything random.
        out: folder for the results; default a new one under runs/.
        json: print the final figures as one JSON object on stdout.
        wide: print every table whole, however wide the terminal is.
        plugin: a .py file or a module that registers constructors of your own; may be given again.
    """

    seed: Seed = 0
    out: Path | None = None
    json: Flag = False
    wide: Flag = False
    plugin: Repeated[str] = ()


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
        if arguments[0] not in commands:
            raise ConfigError(f"command: {arguments[0]!r} is unknown; choose from {', '.join(commands)}")
        cls, handler = commands[arguments[0]].load()
        _load_plugins(arguments[1:])
        handler(_parse(f"{prog} {arguments[0]}", cls, arguments[1:]))
        sys.stdout.flush()  # here, where a full disk is an error of ours, not at the interpreter's end
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        sys.stderr.close()
        return 1
    except (RecastError, OSError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is None and error.strerror:  # files are named by who writes them
            said = f"output: cannot be written: {error.strerror}; send it elsewhere"
            _drop_output()
        print(f"{prog}: error: {printable(said, _LETTERS)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = f"pip install '{_DISTRIBUTION}[{_EXTRAS[package]}]'"
        print(f"{prog}: error: {package} is not installed, which this command needs; {extra}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        said = printable(" ".join(str(error).split()))
        print(f"{prog}: error: out of memory ({said}); make the run smaller", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; what was written is kept", file=sys.stderr)
        return 130
    return 0


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


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr, with rate and time left: bars, or a line every so often without a terminal. Call the yielded function
    with a label, done and total.
    """
    if not Console(stderr=True).is_terminal:
        yield ProgressLines()
        return
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


class ProgressLines:
    """A line for each label when it begins and when it is done, and one every `SECONDS` in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}  # a resumed label does not begin at 0
        self._told: dict[str, float] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        now = self._clock()
        begun, first = self._begun.setdefault(label, (now, done))
        if label in self._told and done < total and now - self._told[label] < SECONDS:
            return
        self._told[label] = now
        words = f"{label}: {done:,} of {total:,}"
        if done > first and now > begun:
            rate = (done - first) / (now - begun)
            words += f", {rate:.3g}/s" + (f", {timedelta(seconds=round((total - done) / rate))} left" if done < total else "")
        print(words, file=sys.stderr, flush=True)


class _RateColumn(ProgressColumn):
    """Steps a second, three digits; nothing before the second step."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.3g}/s", style="progress.data.speed")


def _parse(prog: str, cls: type[T], arguments: list[str]) -> T:
    parser = _Parser(prog, cls)
    given = parser.values(arguments)
    if given.pop("help", False):
        default = None
        with contextlib.suppress(RecastError):  # without its file a command may have no defaults
            default = _default(cls, given)
        _Parser(prog, cls, default).print_help()
        sys.exit(0)
    default = _default(cls, given)
    try:
        return replaced(default, given)
    except ValidationError as error:
        fault = first_fault(error)
        key = ".".join(part for part in fault["loc"] if isinstance(part, str))
        option = "" if fault["type"] == "value_error" else f"{parser.names[key]}: "  # a check of ours names class and field
        raise ConfigError(f"{option}{words(fault)} (see {prog} --help)") from None


def _default(cls: type[T], given: Mapping[str, Any]) -> T:
    """The command before its options, its `config` read from the file that is given or else its default one."""
    hint = get_type_hints(cls, include_extras=True).get("config")
    if hint is None:
        return cls()
    kind, marks = _unmarked(hint)
    whole = next((mark.whole for mark in marks if isinstance(mark, PartOf)), kind)
    file = _recipe(cls, Path(given["file"])) if "file" in given else cls.file  # type: ignore[attr-defined]
    config = whole() if file is None else load_config(whole, file)
    if whole is not kind:
        config = kind(**{f.name: getattr(config, f.name) for f in fields(kind)})
    return cls(file=file, config=config)  # type: ignore[call-arg]


def _recipe(cls: type[Any], given: Path) -> Path:
    """The file that is given, or the recipe of that name in the command's package."""
    module = sys.modules[cls.__module__].__file__
    folder = Path(module).resolve().parents[1] / "recipes" if module else Path()
    return recipe_file(folder, given) if folder.is_dir() else given


class _Parser(argparse.ArgumentParser):
    """Options named by the dotted keys of a command's fields, those of `config` without its name."""

    def __init__(self, prog: str, cls: type[Any], default: Any = None) -> None:
        about = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[0]
        super().__init__(
            prog, f"{prog} [arguments] [options]", about, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
        )
        self.names: dict[str, str] = {}  # what the command line calls each key
        own = self.add_argument_group("options")
        own.add_argument("-h", "--help", action="store_true", help="show this message and exit")
        self._add_fields(own, cls, default, "")

    def values(self, arguments: list[str]) -> dict[str, Any]:
        """What is given, by dotted key."""
        found, unknown = self.parse_known_intermixed_args([_hyphenated(word) for word in arguments])
        if unknown:
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self.names.values(), 1)
            self.error(f"{unknown[0]}: unknown; {f'did you mean {near[0]}?' if near else 'remove it or fix its name'}")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def _add_fields(self, group: Any, cls: type[Any], default: Any, prefix: str) -> None:
        hints, texts = get_type_hints(cls, include_extras=True), _field_texts(cls)
        for f in sorted(
            fields(cls), key=lambda f: is_dataclass(_unmarked(hints[f.name])[0])
        ):  # groups after their parent's own
            key, text, value = f"{prefix}{f.name}", texts.get(f.name, ""), getattr(default, f.name, None)
            kind, marks = _unmarked(hints[f.name])
            if isinstance(kind, type) and is_dataclass(kind):
                inner = group if key == "config" else self.add_argument_group(_shown(key), text.replace("%", "%%"))
                self._add_fields(inner, kind, value, f"{key}.")
            elif _is_option(kind):
                self.names[key] = _shown(key) if _Mark.POSITIONAL in marks else f"--{_shown(key)}"
                self._add_option(group, key, hints[f.name], _with_default(text, value))

    def _add_option(self, group: Any, key: str, hint: Any, text: str) -> None:
        (kind, marks), name = _unmarked(hint), self.names[key]
        if kind is bool:
            action = "store_true" if _Mark.FLAG in marks else argparse.BooleanOptionalAction
            group.add_argument(name, dest=key, action=action, help=text)
            return
        settings: dict[str, Any] = {"metavar": _metavar(kind), "help": f"{_long_choice(kind)}{text}"}
        settings["type"] = _reader(kind, _is_optional(hint))
        if _Mark.REPEATED in marks:
            settings["action"] = "append"
        elif get_origin(kind) is tuple:
            settings["nargs"] = "*"
        elif _Mark.POSITIONAL in marks:
            settings["nargs"] = "?"
        if _Mark.POSITIONAL in marks:
            self.add_argument(key, **settings)
        else:
            group.add_argument(name, dest=key, **settings)


def _reader(kind: Any, optional: bool) -> Callable[[str], Any]:
    """How a word becomes a value: numbers are read here, since a config takes no text for one."""
    parts = {_unmarked(part)[0] for part in get_args(kind) if part is not ...} if get_origin(kind) is tuple else {kind}
    (number,) = parts if parts in ({int}, {float}) else (str,)
    read = _path if parts == {Path} else number_of(number)
    return lambda word: None if optional and word == "None" else read(word)


def _path(word: str) -> str:
    """A path's text. Raises ArgumentTypeError for an empty one, as of a shell's variable that is not set: it would be `.`."""
    if not word:
        raise argparse.ArgumentTypeError("'' names no file or folder; give a path, . for this folder")
    return word


def _unmarked(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A field's type without its marks and without None, and the marks."""
    marks: tuple[Any, ...] = ()
    while get_origin(hint) in (Annotated, Union, UnionType):
        parts = get_args(hint)
        if get_origin(hint) is Annotated:
            marks += parts[1:]
            parts = parts[:1]
        (hint,) = (part for part in parts if part is not NoneType)
    return hint, marks


def _is_optional(hint: Any) -> bool:
    return NoneType in get_args(get_args(hint)[0] if get_origin(hint) is Annotated else hint)


def _is_option(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return all(part is ... or _is_scalar(_unmarked(part)[0]) for part in get_args(kind))
    return _is_scalar(kind)


def _is_scalar(kind: Any) -> bool:
    return get_origin(kind) is Literal or kind in (bool, float, int, Path, str)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return " ".join(_metavar(_unmarked(part)[0]) for part in get_args(kind) if part is not ...)
    if get_origin(kind) is Literal:
        return "NAME" if _long_choice(kind) else f"{{{','.join(map(str, get_args(kind)))}}}"
    return kind.__name__.upper()


def _long_choice(kind: Any) -> str:
    """Choices that no line would hold, as the beginning of an option's text."""
    for part in (kind, *get_args(kind)):
        names = ", ".join(map(str, get_args(part))) if get_origin(part) is Literal else ""
        if len(names) > _CHOICES:
            return f"one of {names}. "
    return ""


def _shown(key: str) -> str:
    return key.removeprefix("config.").replace("_", "-")


def _hyphenated(word: str) -> str:
    """An option as it is registered: `--group_size=8` is `--group-size=8`."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _with_default(text: str, value: Any) -> str:
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if isinstance(value, Path) and value.parent.name == "recipes":
        shown = value.stem
    default = "" if value is None or isinstance(value, bool) or not shown else f"(default: {shown})"
    return f"{text} {default}".strip().replace("%", "%%")


def _field_texts(cls: type[Any]) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each field, under "Attributes:"."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.split(r"\n    (?! )", f"\n{section}")[1:]:
            names, _, text = " ".join(entry.split()).partition(": ")
            texts |= dict.fromkeys(names.split(", "), text)
    return texts


def _overview(prog: str, about: str, commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<12} {command.about()}" for name, command in commands.items()]
    return "\n".join([f"usage: {prog} COMMAND [options]", "", about, "", "commands:", *lines, "", f"{prog} COMMAND --help"])
