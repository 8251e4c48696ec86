"""Structural scores on token ids against a reward function that reads text with a regular expression, call by call.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/structural.py [--quick] [--json]

1,024 prompts of 32 responses, SIDs of 3 levels of 8,192 codes. The reward function has the shape of OpenOneRec's, in words of
ours: it is handed a response and the ground truth as two strings, finds the SIDs of both and compares the sets. Turning ids
into text is not charged to it, nor a tokenizer to us. Both must give the same scores. One torch thread; the clock is its
processor time, which a busy machine does not charge to the longer call.
"""

import re
import statistics
import sys
import time

import torch
from harness import Entry, Result, interleaved, main, timed
from torch import Tensor

from recast_sim.signal import default_level_scores, structural_score

PROMPTS, G, LEVELS, CODES = 1024, 32, 3, 8192
SHAPES = ((1, 1), (4, 10))  # SIDs in a response, targets of a prompt
SCORES = default_level_scores(LEVELS)
SID = re.compile(r"<s_a_(\d+)><s_b_(\d+)><s_c_(\d+)>")


def measure(quick: bool) -> Result:
    """Milliseconds of both at each shape, and their ratio."""
    torch.set_num_threads(1)
    entries, table = [], []
    for sids, targets in SHAPES:
        ids, text = seconds(*make_batch(sids, targets), quick)
        shape = f"{sids} SID{'s' * (sids > 1)}, {targets} target{'s' * (targets > 1)}"
        table.append({"shape": shape, "ids, ms": 1e3 * ids, "text, ms": 1e3 * text, "ratio": text / ids})
        entries.append(Entry(f"structural: ids against a regex per string, {shape}", text / ids, "x"))
    settings = {"prompts": PROMPTS, "group_size": G, "levels": LEVELS, "codes": CODES, "threads": 1}
    return Result(entries, table, settings)


def seconds(sids_PGSL: Tensor, targets_PTL: Tensor, quick: bool) -> tuple[float, float]:
    """Median seconds of a batch by ids and by text, after a check that they agree."""
    responses = [[as_text(response) for response in group] for group in sids_PGSL.tolist()]
    truths = [as_text(prompt) for prompt in targets_PTL.tolist()]

    def by_ids() -> Tensor:
        return structural_score(sids_PGSL, targets_PTL)

    if not torch.allclose(score_text(responses, truths), by_ids(), atol=1e-6):
        raise SystemExit("structural: ids and text disagree about the scores")
    ids, text = [], []
    for _ in range(1 if quick else 5):
        text.append(timed(lambda: score_text(responses, truths), time.thread_time))
        ids.append(interleaved({"ids": by_ids}, 12, time.thread_time)["ids"])
    return statistics.median(ids), statistics.median(text)


def make_batch(sids: int, targets: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """SIDs (P, G, S, L) and targets (P, T, L): one response in eight shares two levels with a target, one in sixteen hits."""
    generator = torch.Generator().manual_seed(seed)
    sids_PGSL = torch.randint(CODES, (PROMPTS, G, sids, LEVELS), generator=generator)
    targets_PTL = torch.randint(CODES, (PROMPTS, targets, LEVELS), generator=generator)
    sids_PGSL[:, : G // 8, 0, :2] = targets_PTL[:, :1, :2]
    sids_PGSL[:, : G // 16, 0] = targets_PTL[:, -1:]
    return sids_PGSL, targets_PTL


def as_text(sids: list[list[int]]) -> str:
    return "".join(f"<|sid_begin|><s_a_{a}><s_b_{b}><s_c_{c}><|sid_end|>" for a, b, c in sids)


def score_text(responses: list[list[str]], truths: list[str]) -> Tensor:
    """Scores (P, G), one call of the reward function a response."""
    return torch.tensor([[score_string(text, truth) for text in group] for group, truth in zip(responses, truths, strict=True)])


def score_string(response: str, truth: str) -> float:
    """The mean over a response's distinct SIDs of the best score against a target."""
    found, wanted = set(SID.findall(response)), set(SID.findall(truth))
    total = 0.0
    for a, b, c in found:
        best = 0
        for x, y, z in wanted:
            if a == x:
                length = 1 if b != y else 2 if c != z else 3
                best = max(best, length)
        total += SCORES[best]
    return total / max(1, len(found))


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
