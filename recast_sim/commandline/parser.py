"""Arguments as a command: an option for each field of its dataclass, and of the `config` that is one of them."""

import argparse
import contextlib
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from recast_sim.commandline.command_options import Mark, PartOf
from recast_sim.commandline.recipe_files import recipe_file
from recast_sim.configio import ConfigError, first_fault, load_config, replaced, words
from recast_sim.errors import RecastError
from recast_sim.field_types import number_of

T = TypeVar("T")
_CHOICES = 60  # letters of choices that stand behind an option's name


def parsed(prog: str, cls: type[T], arguments: list[str]) -> T:
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


def option_parser(prog: str, cls: type[Any]) -> argparse.ArgumentParser:
    """The parser of a command's arguments."""
    return _Parser(prog, cls)


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
                self.names[key] = _shown(key) if Mark.POSITIONAL in marks else f"--{_shown(key)}"
                self._add_option(group, key, hints[f.name], _with_default(text, value))

    def _add_option(self, group: Any, key: str, hint: Any, text: str) -> None:
        (kind, marks), name = _unmarked(hint), self.names[key]
        if kind is bool:
            action = "store_true" if Mark.FLAG in marks else argparse.BooleanOptionalAction
            group.add_argument(name, dest=key, action=action, help=text)
            return
        settings: dict[str, Any] = {"metavar": _metavar(kind), "help": f"{_long_choice(kind)}{text}"}
        settings["type"] = _reader(kind, _is_optional(hint))
        if Mark.REPEATED in marks:
            settings["action"] = "append"
        elif get_origin(kind) is tuple:
            settings["nargs"] = "*"
        elif Mark.POSITIONAL in marks:
            settings["nargs"] = "?"
        if Mark.POSITIONAL in marks:
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
