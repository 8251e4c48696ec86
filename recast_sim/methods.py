"""A method of a comparison: a constructor and what is set otherwise than its setting, written as one line of text.

"recast"    "recast w_minus=0.3"    "recast norm_like=grpo rate_of=grpo"
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from recast_sim.configio import parse_line
from recast_sim.signal import ObjectiveConfig, SignalConfig, get_constructor
from recast_sim.training import TrainingConfig, TrainingError

_SIGNAL = {f.name for f in fields(SignalConfig)}
_OBJECTIVE = {f.name for f in fields(ObjectiveConfig)}
_TRAINING = {f.name for f in fields(TrainingConfig)} - {"constructor", "signal", "objective", "learning_rate"}


@dataclass(frozen=True)
class Method:
    """`name` is the whole line; `rate_of` is the method whose tuned learning rate this one takes ("" tunes its own)."""

    name: str
    constructor: str
    changes: dict[str, Any]
    rate_of: str = ""

    def training(self, setting: TrainingConfig, learning_rate: float) -> TrainingConfig:
        """The setting's training config with this method's changes."""

        def part(names: set[str]) -> dict[str, Any]:
            return {key: value for key, value in self.changes.items() if key in names}

        return replace(
            setting,
            constructor=self.constructor,
            learning_rate=learning_rate,
            signal=replace(setting.signal, **part(_SIGNAL)),
            objective=replace(setting.objective, **part(_OBJECTIVE)),
            **part(_TRAINING),
        )


def parse_method(line: str) -> Method:
    """Read a method from "constructor key=value ..."; keys are fields of SignalConfig, ObjectiveConfig and TrainingConfig.

    Raises:
        ConfigError: an unknown key, or a word that is no key=value.
        TrainingError: a value of the wrong type.
        SignalError: an unknown constructor, or a value that its field refuses.
    """
    word, changes = parse_line(line, _SIGNAL | _OBJECTIVE | _TRAINING | {"rate_of"})
    method = Method(" ".join(line.split()), get_constructor(word).name, changes, str(changes.pop("rate_of", "")))
    try:
        method.training(TrainingConfig(), 1.0)  # a bad value fails here, before hours of work
    except TypeError as error:
        raise TrainingError(f"method {line!r}: a value has the wrong type: {error}") from error
    return method
