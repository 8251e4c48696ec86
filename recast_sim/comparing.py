"""What simulator and trainer share of a comparison of methods."""

import json
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from recast_sim.configio import ConfigError


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
