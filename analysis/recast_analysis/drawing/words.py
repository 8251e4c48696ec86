"""Numbers as words in tables."""

from collections.abc import Mapping
from typing import Any

from recast_analysis.measures.metric_names import GREEDY, IN_NATS, SAMPLED


def ratio_text(ratio: Mapping[str, Any]) -> str:
    """A budget ratio with interval and the number of censored worlds; "no gain" where most baselines gained nothing."""
    if 2 * ratio["trivial"] > ratio["seeds"]:
        return "no gain"
    censored = f" ({len(ratio['censored'])}/{ratio['seeds']})" if ratio["censored"] else ""
    return interval_text(ratio) + censored


def interval_text(interval: Mapping[str, Any], percent: bool = False) -> str:
    """Value and interval; the value alone of one world."""
    scale, form = (100, "+.1f") if percent else (1, ".2f")
    value, *ends = (None if interval[k] is None else format(scale * interval[k], form) for k in ("value", "low", "high"))
    return f"{value}{' %' if percent else ''}" + ("" if None in ends else f" [{ends[0]}, {ends[1]}]")


def gain_text(interval: Mapping[str, Any], metric: str) -> str:
    """A gain with its interval: in nats for a log-likelihood, else in percent."""
    return f"{interval_text(interval)} nats" if metric in IN_NATS else interval_text(interval, percent=True)


def remark(metric: str) -> str:
    """What a reader of a metric must know."""
    return {
        GREEDY: " (the paper's metric)",
        SAMPLED: " (not the paper's metric; temperature alone moves it)",
    }.get(metric, "")
