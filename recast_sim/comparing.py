"""What simulator and trainer share of a comparison: methods as lines of text, tuning seeds, and the best rate of a grid.

"recast"    "recast w_minus=0.3"    "light: recast w_minus=0.3"    "grpo kl=0.001"    "recast norm_like=grpo rate_of=grpo"
"""

import json
import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from recast_sim.configio import ConfigError, override
from recast_sim.signal import Constructor, get_constructor

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)
_SHARED = ("signal", "objective", "thoughts")  # configs in a training config whose fields a line names without a prefix


@dataclass(frozen=True)
class Method:
    """A constructor and what is set otherwise than in the setting.

    Attributes:
        name: what stands before a colon, else the whole line.
        changes: values by dotted key of the training config.
        rate_of: the method whose tuned learning rate this one takes; "" tunes its own.
    """

    name: str
    constructor: Constructor
    changes: dict[str, Any]
    rate_of: str = ""

    @property
    def folder(self) -> str:
        """The name as a folder's name."""
        return re.sub(r"[^A-Za-z0-9._=+-]+", "-", self.name)

    def applied(self, base: T, **more: Any) -> T:
        """A training config with this method's changes and `more`.

        Raises:
            ConfigError: a value that its field refuses.
        """
        return override(base, self.changes | more)


def parse_method(line: str, base: Any, without: Collection[str] = (), may_follow: bool = False) -> Method:
    """Read a method from "constructor key=value ...", or from "name: constructor key=value ...".

    Args:
        base: a training config; keys are its fields, those of its `signal`, `objective` and `thoughts`, and those of
            its other configs with a prefix ("rollout.method"). A field `constructor` gets the constructor's name.
        without: fields that a line may not set.
        may_follow: whether `rate_of` is a key too.

    Raises:
        ConfigError: an unknown key, a word that is no key=value, or a value that its field refuses.
        SignalError: an unknown constructor.
    """
    keys = _dotted_keys(base)
    known = keys.keys() - {"constructor", *without} | ({"rate_of"} if may_follow else set())
    name, _, told = line.rpartition(": ")  # "module:name" has no blank
    word, given = parse_line(told, known)
    rate_of, constructor = str(given.pop("rate_of", "")), get_constructor(word)
    changes = {keys[key]: value for key, value in given.items()}
    if "constructor" in keys:
        changes["constructor"] = constructor.name
    method = Method(" ".join((name or told).split()), constructor, changes, rate_of)
    try:
        method.applied(base)  # a bad value fails here, before hours of work
    except ConfigError as error:
        raise ConfigError(f"method {line!r}: {error}") from error
    return method


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


def comparison_seeds(seed: int, reported: int, tuning: int) -> tuple[range, range]:
    """Seeds that are reported, and those that only choose the rates."""
    return range(seed, seed + reported), range(seed + 10_000, seed + 10_000 + tuning)


def best_rates(trials: Iterable[tuple[Key, float, float]]) -> dict[Key, tuple[float, float]]:
    """The rate with the best mean score, and that mean, by what was tuned; of equal means the rate tried first.

    Args:
        trials: what is tuned, rate and score of each trial; a rate may be tried on several seeds.
    """
    scores: dict[Key, dict[float, list[float]]] = {}
    for key, rate, score in trials:
        scores.setdefault(key, {}).setdefault(rate, []).append(score)
    means = {key: {rate: float(np.mean(found)) for rate, found in by_rate.items()} for key, by_rate in scores.items()}
    return {key: max(by_rate.items(), key=lambda item: item[1]) for key, by_rate in means.items()}


def rate_rows(
    rates: Mapping[tuple[str, ...], float], methods: Sequence[Method], grids: Mapping[tuple[str, str], Sequence[float]]
) -> list[dict[str, Any]]:
    """Chosen rates, by (setting, method) or (setting, method, metric), as rows of a table.

    `at_edge`: the end of the grid was chosen, `grids` being all rates tried by setting and method; `draws`: the method needs
    rollouts at all.
    """
    draws = {method.name: method.constructor.rollouts for method in methods}
    return [
        {
            **dict(zip(("setting", "method", "metric"), key, strict=False)),
            "learning_rate": rate,
            "at_edge": rate in (min(grids[key[0], key[1]]), max(grids[key[0], key[1]])),
            "draws": draws[key[1]],
        }
        for key, rate in rates.items()
    ]


def _dotted_keys(base: Any) -> dict[str, str]:
    """The dotted key of each key of a line: fields that are no configs, those of the shared configs by name, others' dotted."""
    found = {name: name for name in _plain_fields(base)}
    for part in [f.name for f in fields(base) if f.name not in found]:
        for name in _plain_fields(getattr(base, part)):
            found[name if part in _SHARED else f"{part}.{name}"] = f"{part}.{name}"
    return found


def _plain_fields(config: Any) -> list[str]:
    return [f.name for f in fields(config) if not is_dataclass(getattr(config, f.name))]
