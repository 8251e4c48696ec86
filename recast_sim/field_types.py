"""Types of config fields: what a value may be stands in its field's type, and nowhere else.

`with_bounds` makes every number of a config a plain one (no text, no True, no NaN) of a size that can be meant. The names below
say more: a share, a seed, a regime.
"""

import math
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, Field, Strict
from pydantic_core import PydanticCustomError

T = TypeVar("T")
WHOLE, LARGE, SMALL = 1_000_000, 1e20, 1e-12  # the largest whole number and float of a config, and the smallest float but 0

AtLeastOne = Annotated[tuple[T, ...], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**62)]
GroupSize = Annotated[int, Field(ge=1, le=4096)]
Passes = Annotated[float, Field(ge=0, le=1000)]
Exponent = Annotated[float, Field(ge=-10, le=10)]
Worlds = Annotated[int, Field(ge=1, le=10_000)]  # `comparison_seeds` tunes on those from 10 000 on
Workers = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=16_384)]
Convergence = Annotated[float, Field(ge=0, le=100)]


def _distinct(values: Sequence[Any]) -> Sequence[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("repeated", "must not repeat {again}", {"again": repr(value)})
    return values


def _regime(shares: Sequence[float]) -> Sequence[float]:
    if len(shares) != 3 or min(shares) < 0 or sum(shares) > 1 + 1e-6:  # below 1 is for the calibration to refuse
        raise PydanticCustomError("regime", "must be three shares (all_zero, single_hit, multi_hit) that add up to 1")
    return shares


def _regime_or_none(shares: Sequence[float]) -> Sequence[float]:
    return _regime(shares) if shares else shares


Several = Annotated[tuple[T, ...], AfterValidator(_distinct)]
Distinct = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]
Regime = Annotated[tuple[float, float, float], AfterValidator(_regime)]
OptionalRegime = Annotated[tuple[float, ...], AfterValidator(_regime_or_none)]


def _not_tiny(value: float) -> float:
    if value and abs(value) < SMALL:
        raise PydanticCustomError("tiny", "must be 0 or at least {least} in size", {"least": f"{SMALL:g}"})
    return value


_BOUNDS: dict[Any, tuple[Any, ...]] = {
    bool: (Strict(),),
    int: (Strict(), Field(ge=-WHOLE, le=WHOLE)),
    float: (Strict(), Field(ge=-LARGE, le=LARGE, allow_inf_nan=False)),
}
_LAST: dict[Any, tuple[Any, ...]] = {float: (AfterValidator(_not_tiny),)}


def with_bounds(hint: Any) -> Any:
    """A field's type, every number in it bounded; bounds that the field states itself come after, and replace these."""
    origin, parts = get_origin(hint), get_args(hint)
    base, marks = (parts[0], parts[1:]) if origin is Annotated else (hint, ())
    if base in (bool, int, float):
        return Annotated[base, *_BOUNDS[base], *marks, *_LAST.get(base, ())]
    if origin is Annotated:
        return Annotated[with_bounds(parts[0]), *parts[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(map(with_bounds, parts))]  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(with_bounds(part) for part in parts)]  # type: ignore[misc]
    return hint


def number_of(kind: type) -> Callable[[str], Any]:
    """A word of the command line as a number of a kind, or as it is where it is none, for the field's type to refuse."""

    def read(word: str) -> Any:
        try:
            return kind(word)
        except (ValueError, OverflowError):
            return word

    return read


def is_finite(value: Any) -> bool:
    """Whether a number, if it is one, is neither NaN nor infinite."""
    return not isinstance(value, float) or math.isfinite(value)
