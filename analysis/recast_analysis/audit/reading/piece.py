"""A part of a dump's file whose size is bounded, and where each of its rows came from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

SAMPLE = 1000  # rows at the start of a file that stand for it: for the types of JSON lines, and for what texts look like


@dataclass(frozen=True)
class Piece:
    """Some rows of a file.

    Attributes:
        frame: the columns that have a role; values that do not fit their type are null.
        origin: a row's place in words ("line 7"), and its values as the file has them.
    """

    frame: pl.LazyFrame
    origin: Callable[[int], tuple[str, dict[str, Any]]]
