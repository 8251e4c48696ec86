"""Numbers and metrics in words."""

from collections.abc import Mapping
from typing import Any

from recast_analysis.measures.metric_names import GREEDY, IN_NATS, SAMPLED

_WORDS = {
    "pass_at_1_greedy": "greedy Pass@1",
    "pass_at_1_sampled": "sampled Pass@1",
    "recall_at_k": "Recall@10",
    "ndcg_at_k": "NDCG@10",
    "hr@10": "HR@10",
    "ndcg@10": "NDCG@10",
    "all_zero_expected": "expected all-zero groups",
    "calibrated_log_likelihood": "calibrated log-likelihood",
    "log_likelihood": "log-likelihood",
}


def metric_words(metric: str) -> str:
    """A metric's column as it is called in words."""
    return _WORDS.get(metric, metric.replace("_", " "))


def count_words(number: int, noun: str) -> str:
    """ "1 setting", "1,200 settings": a number and a noun whose plural takes an s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
