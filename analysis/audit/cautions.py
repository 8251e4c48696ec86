"""What a reader of an audit must know before believing its figures."""

from collections.abc import Mapping
from typing import Any

_RAGGED = 0.01  # share of groups of odd sizes that is worth a word
_REJECTED = 0.01


def cautions(summary: Mapping[str, Any]) -> list[str]:
    """Sentences on how the dump was read, on its rewards, and on the fit."""
    return [*_of_groups(summary["dump"]), *_of_rewards(summary), *_of_fit(summary)]


def _of_groups(dump: Mapping[str, Any]) -> list[str]:
    words = []
    if dump["repeated_steps"]:
        words.append(
            f"{dump['repeated_steps']} steps hold the rows of the step before once more (TRL writes what was generated last at "
            "every logging step) and are left out"
        )
    if dump["merged_groups"]:
        words.append(
            f"{dump['merged_groups']:,} of {dump['groups']:,} groups have a multiple of {dump['group_size']} rows: the same "
            f"{dump['grouped_by']!r} stands in one step more than once, and counts as one group"
        )
    if dump["ragged_groups"] > _RAGGED * dump["groups"]:
        words.append(
            f"{dump['ragged_groups']:,} of {dump['groups']:,} groups have no multiple of {dump['group_size']} rows; were some "
            "filtered or cut?"
        )
    return words


def _of_rewards(summary: Mapping[str, Any]) -> list[str]:
    dump, words = summary["dump"], []
    if dump["non_binary_rows"]:
        words.append(
            f"{dump['non_binary_rows']:,} rewards are neither 0 nor 1 ({dump['reward_low']:g} to {dump['reward_high']:g}); "
            f"a hit is above {dump['hit_above']:g} (--hit-above), waste goes by the rewards themselves"
        )
    if dump["hit_rate"] in (0, 1):
        which = "every" if dump["hit_rate"] else "no"
        words.append(f"{which} reward is above {dump['hit_above']:g}; is --hit-above right?")
    if summary["learnable"]["targets"] is False:
        words.append("the first rows name no target; a repair needs one")
    return words


def _of_fit(summary: Mapping[str, Any]) -> list[str]:
    words = []
    if summary["sids"] and not summary["duplicates"]["rollouts"]:
        words.append(
            "no response comes twice in any group, as in beam search or sampling without replacement: hits of such groups "
            "follow no Beta-binomial, and the prediction at other group sizes does not hold"
        )
    p_value = summary["fits"]["all steps"].get("p_value")
    if p_value is not None and p_value < _REJECTED:
        words.append(
            f"the Beta-binomial does not fit the hits of all steps (p = {p_value:.2g}), so the prediction at other group sizes "
            "is less sure than its intervals: hit rates may change over training, or a group's rollouts depend on each other"
        )
    return words
