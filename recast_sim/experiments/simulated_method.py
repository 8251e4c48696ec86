"""A method of a comparison: a constructor and what is set otherwise than its setting, written as one line of text.

"recast"    "recast w_minus=0.3"    "recast norm_like=grpo rate_of=grpo"
"""

from dataclasses import dataclass, replace
from typing import Any

from recast_sim.comparing import dotted_keys, parse_line
from recast_sim.configio import ConfigError, override
from recast_sim.signal import get_constructor
from recast_sim.training.loop import TrainingConfig

_KEYS = dotted_keys(TrainingConfig, "signal", "objective", without=("constructor", "learning_rate"))


@dataclass(frozen=True)
class Method:
    """`name` is the whole line; `rate_of` is the method whose tuned learning rate this one takes ("" tunes its own)."""

    name: str
    constructor: str
    changes: dict[str, Any]
    rate_of: str = ""

    def training(self, setting: TrainingConfig, learning_rate: float) -> TrainingConfig:
        """The setting's training config with this method's changes.

        Raises:
            ConfigError: a value that its field refuses.
        """
        changed = override(setting, {_KEYS[key]: value for key, value in self.changes.items()})
        return replace(changed, constructor=self.constructor, learning_rate=learning_rate)


def parse_method(line: str) -> Method:
    """Read a method from "constructor key=value ..."; keys are fields of SignalConfig, ObjectiveConfig and TrainingConfig.

    Raises:
        ConfigError: an unknown key, a word that is no key=value, or a value that its field refuses.
        SignalError: an unknown constructor.
    """
    word, changes = parse_line(line, {*_KEYS, "rate_of"})
    method = Method(" ".join(line.split()), get_constructor(word).name, changes, str(changes.pop("rate_of", "")))
    try:
        method.training(TrainingConfig(), 1.0)  # a bad value fails here, before hours of work
    except ConfigError as error:
        raise ConfigError(f"method {line!r}: {error}") from error
    return method
