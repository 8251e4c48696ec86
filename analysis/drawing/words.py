"""Numbers as words in tables."""

from collections.abc import Mapping
from typing import Any


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """A budget ratio with interval and the number of censored worlds; "no gain" where most baselines gained nothing."""
    if 2 * ratio["trivial"] > ratio["seeds"]:
        return "no gain"
    value, low, high = (">1" if ratio[k] is None else f"{ratio[k]:.2f}" for k in ("value", "low", "high"))
    censored = f" ({len(ratio['censored'])}/{ratio['seeds']})" if ratio["censored"] else ""
    return f"{value} [{low}, {high}]{censored}"


def interval_text(interval: Mapping[str, Any], percent: bool = False) -> str:
    """Value and interval."""
    scale, form = (100, "+.1f") if percent else (1, ".2f")
    value, low, high = (format(scale * interval[k], form) for k in ("value", "low", "high"))
    return f"{value}{' %' if percent else ''} [{low}, {high}]"
