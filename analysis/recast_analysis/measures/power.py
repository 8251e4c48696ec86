"""Power of a paired t test over worlds: how many are needed, what so many can see. Two-sided, at the 5 % level by default."""

import functools

from scipy.optimize import root_scalar
from scipy.special import ncfdtr, stdtrit

POWER, LEVEL = 0.8, 0.05
_MOST = 100_000


def power(effect: float, scatter: float, worlds: int, level: float = LEVEL) -> float:
    """Chance that a mean effect is told from 0 over so many worlds, its standard deviation over worlds being `scatter`.

    Raises:
        ValueError: fewer than two worlds, or a scatter that is not above 0.
    """
    if worlds < 2 or scatter <= 0:
        raise ValueError(f"worlds, scatter: {worlds} and {scatter} must be at least 2 and above 0")
    return power_of_t(effect / scatter * worlds**0.5, worlds - 1, level)


def power_of_t(errors: float, freedom: float, level: float = LEVEL) -> float:
    """Chance that an effect of so many standard errors is told from 0, the error being estimated on `freedom` degrees."""
    if errors == 0:
        return level
    limit = stdtrit(freedom, 1 - level / 2)
    return float(1 - ncfdtr(1, freedom, errors**2, limit**2))  # the law of the squared t


def worlds_needed(effect: float, scatter: float) -> int | None:
    """Fewest worlds with a power of 80 %; None where it is more than 100,000."""
    low, high = 1, 2
    while power(effect, scatter, high) < POWER:
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, scatter, middle) < POWER else (low, middle)
    return high


def smallest_effect(scatter: float, worlds: int, level: float = LEVEL) -> float:
    """The effect that so many worlds see with a power of 80 %."""
    return scatter * _in_units_of_scatter(worlds, level)


@functools.cache
def _in_units_of_scatter(worlds: int, level: float) -> float:
    most = 100 * max(1.0, LEVEL / level)
    return float(root_scalar(lambda effect: power(effect, 1.0, worlds, level) - POWER, bracket=(0.0, most)).root)
