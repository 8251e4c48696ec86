"""A method of a real run: a constructor and what is set otherwise than in the recipe, written as one line of text.

"recast"    "recast w_minus=0.3"    "grpo kl=0.001 clip_high=0.2"
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from recast_sim.comparing import dotted_keys, parse_line
from recast_sim.configio import ConfigError, override
from recast_sim.signal import Constructor, get_constructor
from recast_train.rl.rl_config import RlConfig

_KEYS = dotted_keys(RlConfig, "signal", "objective", without=("rollout",))


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
        """The recipe's loop with this method's changes, then `more`.

        Raises:
            ConfigError: a value that its field refuses.
        """
        return replace(override(config, {_KEYS[key]: value for key, value in self.changes.items()}), **more)


def parse_method(line: str) -> Method:
    """Read a method from "constructor key=value ...".

    Raises:
        ConfigError: an unknown key, a word that is no key=value, or a value that its field refuses.
        SignalError: an unknown constructor.
    """
    word, changes = parse_line(line, _KEYS)
    method = Method(" ".join(line.split()), get_constructor(word), changes)
    try:
        method.rl(RlConfig())  # a bad value fails here, before hours of work
    except ConfigError as error:
        raise ConfigError(f"method {line!r}: {error}") from error
    return method
