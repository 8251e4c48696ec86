"""Configs: frozen dataclasses that check themselves, read from TOML files, changed at dotted keys."""

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from recast_sim.bounded import MEGABYTE, read_bounded
from recast_sim.errors import RecastError
from recast_sim.field_types import AtLeastOne, Share, with_bounds

__all__ = ["AtLeastOne", "Checked", "ConfigError", "Share", "first_fault", "load_config", "override", "replaced", "words"]

T = TypeVar("T")
_FILE = MEGABYTE  # bytes of a config file
_NUMBER, _WHOLE = "must be a number", "must be a whole number"
_BOUNDS = {"ge", "gt", "le", "lt"}
_FIXES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "finite_number": "must be finite",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "missing": "must hold at least one more",
    "too_long": "must hold {max_length} at most",
    "too_short": "must hold at least {min_length}",
}


class ConfigError(RecastError):
    """A config file or command line that does not fit; the message names file and key path, or the option."""


class Checked:
    """Base of a config dataclass: what its annotations say is checked whenever one is made, in Python or from a file.

        @dataclass(frozen=True)
        class PolicyConfig(Checked, error=PolicyError):
            width: PositiveInt = 32

    `PolicyConfig(width=0)` raises PolicyError("PolicyConfig.width: 0 must be at least 1"). Numbers are plain, finite and of a
    size that can be meant (`with_bounds`). What concerns several fields goes into a `__post_init__` that calls this one first.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "allow_inf_nan": False}
    _error: ClassVar[type[ValueError]] = ConfigError

    def __init_subclass__(cls, error: type[ValueError] | None = None) -> None:
        cls._error = error or cls._error
        own = inspect.get_annotations(cls)
        cls.__annotations__ = {n: hint if get_origin(hint) is ClassVar else with_bounds(hint) for n, hint in own.items()}

    def __post_init__(self) -> None:
        for name, adapter in _field_checks(type(self)).items():
            try:
                adapter.validate_python(getattr(self, name))
            except ValidationError as error:
                fault = first_fault(error)
                raise self._error(
                    f"{type(self).__name__}.{'.'.join([name, *map(str, fault['loc'])])}: {words(fault)}"
                ) from None


def load_config(cls: type[T], path: Path) -> T:
    """Read a TOML file into a (frozen, nested) dataclass.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, or a value that does not fit.
    """
    try:
        table = tomllib.loads(read_bounded(path, _FILE, ConfigError).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # tomllib's own, numbers of thousands of digits, tables in tables
        raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        return _adapter(cls).validate_python(table)
    except ValidationError as error:
        fault = first_fault(error)
        where = ".".join(map(str, fault["loc"]))
        if fault["type"] == "unexpected_keyword_argument":
            raise ConfigError(f"{path}: unknown key {where!r}; remove it or fix its name") from error
        raise ConfigError(f"{path}: key {where!r}: {words(fault)}" if where else f"{path}: {words(fault)}") from error


def override(config: T, changes: Mapping[str, Any]) -> T:
    """A dataclass with other values at dotted keys, for example {"training.signal.w_minus": 0.3}.

    Raises:
        ConfigError: an unknown key, a table in place of one, or a value that does not fit.
    """
    try:
        return replaced(config, changes)
    except ValidationError as error:
        fault = first_fault(error)
        where = ".".join(map(str, (type(config).__name__, *fault["loc"])))
        raise ConfigError(words(fault) if fault["type"] == "value_error" else f"{where}: {words(fault)}") from error


def replaced(config: T, changes: Mapping[str, Any]) -> T:
    """What `override` returns; a value that does not fit is pydantic's ValidationError, for a caller with words of its own."""
    table = asdict(config)  # type: ignore[call-overload]
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = table
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise ConfigError(f"key {key!r}: {type(config).__name__} has none; fix its name")
        if isinstance(inner[last], dict):  # `sft.steps = 3` without quotes: a table would reset what it does not name
            raise ConfigError(f'key {key!r}: is a table; set its keys one by one, each in quotes, as in "{key}.NAME" = VALUE')
        inner[last] = value
    return _adapter(type(config)).validate_python(table)


def first_fault(error: ValidationError) -> ErrorDetails:
    """The first fault that pydantic found."""
    return error.errors(include_url=False)[0]


def words(fault: ErrorDetails) -> str:
    """A fault as a value and its fix ("0 must be at least 1"); of a check of ours, what that check said."""
    if fault["type"] == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    value, bounds = fault["input"], fault.get("ctx", {})
    known = _FIXES.get(fault["type"])
    fix = fault["msg"] if known is None else known.format(**bounds)
    if isinstance(bounds.get("gt"), int):
        fix = f"must be at least {bounds['gt'] + 1}"
    return f"{value if bounds.keys() & _BOUNDS else repr(value)} {fix}"


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


@cache
def _field_checks(cls: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """A validator of each field; a nested config has checked itself."""
    bare, hints = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    names = [name for name in cls.__dataclass_fields__ if not is_dataclass(bare[name])]
    return {name: TypeAdapter(hints[name], config=ConfigDict(allow_inf_nan=False)) for name in names}
