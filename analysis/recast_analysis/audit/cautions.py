"""What a reader of an audit must know before believing its figures."""

from collections.abc import Mapping
from typing import Any

_RAGGED = 0.01  # share of groups of odd sizes that is worth a word
_REJECTED = 0.01
_FEW = 5  # steps that are named


def cautions(summary: Mapping[str, Any]) -> list[str]:
    """Sentences on how the dump was read, on its rewards, and on the fit."""
    return [*_of_groups(summary["dump"]), *_of_rewards(summary), *_of_fit(summary)]


def _of_groups(dump: Mapping[str, Any]) -> list[str]:
    return [*_of_sizes(dump), *_of_signs(dump), *_of_steps(dump)]


def _of_sizes(dump: Mapping[str, Any]) -> list[str]:
    size, groups, by = dump["group_size"], f"{dump['groups']:,} groups", dump["grouped_by"]
    words = []
    if dump["merged_groups"]:
        words.append(
            f"{dump['merged_groups']:,} of {groups} have a multiple of {size} rows, as where the same {by} stands in one step "
            "more than once, and count as one group each"
        )
    if dump["part_groups"]:
        words.append(
            f"{dump['part_groups']:,} of {groups} have fewer rows than {size}, which is a multiple of theirs: were they cut, "
            f"or does the same {by} stand in one step more than once in the others?"
        )
    if dump["ragged_groups"] > _RAGGED * dump["groups"]:
        words.append(
            f"{dump['ragged_groups']:,} of {groups} have no multiple of {size} rows; were some filtered or cut, or is another "
            "dump, such as validation, among them?"
        )
    if dump["groups"] == dump["steps"]:
        words.append(f"each step is one group; does {by} tell its prompts apart?")
    return words


def _of_signs(dump: Mapping[str, Any]) -> list[str]:
    signs, groups = dump["signs"], f"{dump['groups']:,} groups"
    words = []
    if signs.get("mixed"):
        words.append(
            f"{signs['mixed']:,} of {groups} hold rows of more than one prompt or target: does {dump['grouped_by']} tell "
            "prompts apart? if not, name a column that does with --columns group="
        )
    if signs.get("twins"):
        words.append(
            f"{signs['twins']:,} of {groups} have the prompt and target of another group of their step: drawn twice, or rows "
            "of two runs or of a copy"
        )
    if signs.get("doubled"):
        words.append("each row stands in its group an even number of times: does the dump hold a copy of itself?")
    if signs.get("apart"):
        words.append(
            f"the rows of {signs['apart']:,} of {groups} do not stand together, as TRL writes them: was one prompt drawn "
            "more than once in a step? it counts as one group"
        )
    return words


def _of_steps(dump: Mapping[str, Any]) -> list[str]:
    words = []
    if dump["repeated_steps"]:
        words.append(
            f"{dump['repeated_steps']} steps hold the rows of the step before once more (TRL writes what was generated last at "
            "every logging step) and are left out"
        )
    if dump["alike_steps"]:
        words.append(
            f"{dump['alike_steps']} steps hold the rows of the step before once more, and one completion a group: whether TRL "
            "wrote them twice or the policy has collapsed cannot be told; they count"
        )
    if dump["doubled_steps"]:
        steps = ", ".join(map(str, dump["doubled_steps"][:_FEW])) + (", ..." if len(dump["doubled_steps"]) > _FEW else "")
        words.append(f"a multiple of the rows that most steps have is in step {steps}; does the dump hold it more than once?")
    if dump["pooled_steps"]:
        words.append(
            f"the rows of {dump['pooled_steps']:,} of {dump['steps']:,} steps stand in several files and are pooled, as the "
            "parts of one dump are; a copy or a second run would count twice"
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
    if summary["dump"]["unread_sid"]:
        words.append(
            f"responses hold such as {summary['dump']['unread_sid']}; if these are semantic IDs, they are not checked: those "
            "that are look like <a_12><b_3> or <s_a_12><s_b_3>"
        )
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
