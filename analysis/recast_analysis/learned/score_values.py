"""One value of a score file as what its role says it is; whatever else it is, is an error that names its place.

Text cells of CSV and values of JSON and parquet come in here: a number may be text, a list may be a JSON list in a cell.
"""

import json
import math
from typing import Any

from recast_analysis.learned.learned_error import LearnedError
from recast_sim.runs.table_files import NO_IDS

_ROUNDING = 1e-4  # of a log-probability, which may not be above 0
_LARGEST = 1e6  # of a score, a log-probability or an entropy
_LONGEST = 10_000_000  # numbers of a list
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_LETTERS = 60  # of a value in a message


def id_of(value: Any, where: str) -> str:
    """An id as text: a whole number is its digits, so that 7 of one file is "7" of another; "07" and "7" are two."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise wrong(value, where, "write ids as text or whole numbers")
    if not value.strip() or value in NO_IDS:
        raise wrong(value, where, "give every row an id")
    return value


def item_of(value: Any, where: str) -> str:
    """An item as text, `bare`."""
    return id_of(bare(value) if isinstance(value, str) else value, where)


def bare(text: str) -> str:
    """Text without the blanks, line ends and quotes around it, which generated text has."""
    return text.strip(" \r\n\t\"'")


def number_at(value: Any, where: str, most: float = _LARGEST) -> float:
    """A number of at most `most` in size."""
    if isinstance(value, str):
        value = _plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(value, where, "write a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or abs(found) > most:
        raise wrong(value, where, f"write a finite number, of {most:,.0f} at most in size")
    return found


def whole_at(value: Any, where: str, least: int) -> int:
    """A whole number of `least` or more; 3.0 is one, since tables with gaps hold floats."""
    found = number_at(value, where, 2**53)
    if found != int(found) or found < least:
        raise wrong(value, where, f"write a whole number of {least} or more")
    return int(found)


def truth_at(value: Any, where: str) -> bool:
    """True, False, 1 or 0."""
    found = _TRUTHS.get(str(value).lower()) if isinstance(value, bool | int | float | str) else None
    if found is None:
        raise wrong(value, where, "write 1 or 0")
    return found


def list_at(value: Any, where: str) -> list[Any]:
    """A list of one value or more, or a cell that holds one as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise wrong(value, where, "write a list, in CSV as JSON: [1, 2]") from error
    if not isinstance(value, list) or not value or len(value) > _LONGEST:
        raise wrong(value, where, "write a list of one value or more")
    return value


def logprobs_at(value: Any, where: str) -> list[float]:
    """A log-probability, or one a level; none is above 0."""
    values = list_at(value, where) if isinstance(value, list) or str(value).lstrip().startswith("[") else [value]
    found = [number_at(one, where) for one in values]
    if max(found) > _ROUNDING:
        raise wrong(max(found), where, "write natural logarithms of probabilities, which are never above 0")
    return [min(one, 0.0) for one in found]


def wrong(value: Any, where: str, fix: str) -> LearnedError:
    """The error of a value that is not what it should be."""
    shown = repr(value)
    shown = shown if len(shown) <= _LETTERS else f"{shown[:_LETTERS]}..."
    return LearnedError(f"{where}: {'missing' if value is None else f'found {shown}'}; {fix}")


def _plain_number(text: str) -> Any:
    """A number written in plain digits, as every tool reads it: no 1_000, no digits of other scripts."""
    try:
        return text if "_" in text or not text.isascii() else float(text)
    except ValueError:
        return text
