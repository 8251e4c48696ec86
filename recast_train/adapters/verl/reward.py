"""Reward function of semantic IDs (SIDs) in text: an exact hit of any target, and the structural score beside it.

`reward.custom_reward_function.path=pkg://recast_train.adapters.verl.reward`; verl calls `compute_score` once a rollout.
"""

import re
from typing import Any

import torch

from recast_sim.signal import exact_hit, structural_score
from recast_train.adapters.verl.anchors import AnchorTokens
from recast_train.data.readers.given_sids import Codes, parse_levels

_SID = re.compile(r"<s_a_[0-9]+>(?:\s*<s_[b-z]_[0-9]+>)*")  # some tokenizers decode added tokens with spaces between them
_THOUGHT_END = "</think>"


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **ignored: Any
) -> dict[str, float]:
    """`score` 1.0 where the first SID after the thought is one of the ground truth's, else 0.0; `structural` in [0, 1].

    The structural score is that of arXiv 2604.22169 over all SIDs of the answer; one that the answer repeats counts each time,
    as in OpenOneRec's own score. SIDs of another number of levels than the
    ground truth's do not count. Where the data set says that rollouts think first (`extra_info["recast"]["thought_end"]`), one
    that did not finish its thought has no answer. verl decodes without special tokens: those of SIDs must not be special.

    Raises:
        ValueError: no SID in the ground truth.
    """
    targets = _sids(ground_truth)
    if not targets:
        raise ValueError(f"ground_truth: {ground_truth[:80]!r} of {data_source} has no semantic ID as <s_a_1><s_b_2><s_c_3>")
    levels = len(targets[0])
    _, ended, answer = solution_str.rpartition(_THOUGHT_END)
    if not ended and AnchorTokens.of(extra_info).thought_end is not None:
        answer = ""
    found = [sid for sid in _sids(answer) if len(sid) == levels]
    if not found:
        return {"score": 0.0, "structural": 0.0}
    sids_1SL, targets_1TL = torch.tensor([found]), torch.tensor([targets])
    return {
        "score": float(exact_hit(sids_1SL[:, :1], targets_1TL)),
        "structural": float(structural_score(sids_1SL[:, None], targets_1TL, repeats="each")),
    }


def _sids(text: str) -> list[Codes]:
    found = (parse_levels(re.findall("<[^>]*>", run), "s_") for run in _SID.findall(text))
    return [codes for codes in found if codes is not None]
