"""A method of a comparison: a constructor and what is set otherwise than its setting, written as one line of text.

"recast"    "recast w_minus=0.3"    "recast norm_like=grpo rate_of=grpo"
"""

import json
from dataclasses import dataclass, fields, replace
from typing import Any

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
        TrainingError: an unknown key, or a word that is no key=value.
        SignalError: an unknown constructor, or a value that its field refuses.
    """
    words = line.split()
    if not words:
        raise TrainingError("method: empty; write a constructor's name, for example 'recast w_minus=0.3'")
    changes: dict[str, Any] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in _SIGNAL | _OBJECTIVE | _TRAINING | {"rate_of"}:
            raise TrainingError(f"method {line!r}: {word!r} must be key=value with a key of the signal, objective or training")
        changes[key] = _value(value)
    method = Method(" ".join(words), get_constructor(words[0]).name, changes, str(changes.pop("rate_of", "")))
    try:
        method.training(TrainingConfig(), 1.0)  # a bad value fails here, before hours of work
    except TypeError as error:
        raise TrainingError(f"method {line!r}: a value has the wrong type: {error}") from error
    return method


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
