"""A method of a real run: a constructor and what is set otherwise than in the recipe, written as one line of text.

"recast"    "recast w_minus=0.3"    "grpo kl=0.001 clip_high=0.2"
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from recast_sim.configio import parse_line
from recast_sim.signal import Constructor, ObjectiveConfig, SignalConfig, get_constructor
from recast_train.model import TrainError
from recast_train.rl import RlConfig

_SIGNAL = {f.name for f in fields(SignalConfig)}
_OBJECTIVE = {f.name for f in fields(ObjectiveConfig)}
_LOOP = {f.name for f in fields(RlConfig)} - {"signal", "objective", "rollout"}


@dataclass(frozen=True)
class Method:
    """`name` is the whole line; `changes` are fields of SignalConfig, ObjectiveConfig and RlConfig."""

    name: str
    constructor: Constructor
    changes: dict[str, Any]

    @property
    def folder(self) -> str:
        """The name as a folder's name."""
        return re.sub(r"[^A-Za-z0-9._=+-]+", "-", self.name)

    def rl(self, config: RlConfig, **more: Any) -> RlConfig:
        """The recipe's loop with this method's changes, then `more`."""

        def part(names: set[str]) -> dict[str, Any]:
            return {key: value for key, value in self.changes.items() if key in names}

        signal, objective = replace(config.signal, **part(_SIGNAL)), replace(config.objective, **part(_OBJECTIVE))
        return replace(config, signal=signal, objective=objective, **{**part(_LOOP), **more})


def parse_method(line: str) -> Method:
    """Read a method from "constructor key=value ...".

    Raises:
        ConfigError: an unknown key, or a word that is no key=value.
        SignalError, TrainError: an unknown constructor, or a value that its field refuses.
    """
    word, changes = parse_line(line, _SIGNAL | _OBJECTIVE | _LOOP)
    method = Method(" ".join(line.split()), get_constructor(word), changes)
    try:
        method.rl(RlConfig())  # a bad value fails here, before hours of work
    except TypeError as error:
        raise TrainError(f"method {line!r}: a value has the wrong type: {error}") from error
    return method
