"""Whole groups on disk, as verl writes rollouts, before the sampler drops rows.

verl writes `trainer.rollout_data_dir` at the end of a step. By then the queue holds the kept rows alone, whose scores are
coefficients. So the sampler writes the folder itself, in verl's columns, and `recast-report audit` reads it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_sim.runs import write_text

FIELDS = ("prompts", "responses", "rm_scores", "reward_model", "extra_fields")  # of a row in the queue, what is written


def write_groups(
    folder: Path, step: int, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], decode: Callable[[Any], str]
) -> Path:
    """Write a step's rollouts to `{step}.jsonl`, group by group, and return the file's path.

    Args:
        keys: of the rows in verl's queue, `{uid of the prompt}_{session}_{output}`.
        rows: what the queue holds of them, by the names of `FIELDS`; `rm_scores` are still the rewards.
        decode: token ids to text.
    """
    places = {key: (uid, int(session), int(output)) for key in keys for uid, session, output in [key.rsplit("_", 2)]}
    ordered = sorted(zip(keys, rows, strict=True), key=lambda pair: places[pair[0]])
    lines = [json.dumps(_line(key, row, step, decode), ensure_ascii=False) for key, row in ordered]
    path = folder / f"{step}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def _line(key: str, row: Mapping[str, Any], step: int, decode: Callable[[Any], str]) -> dict[str, Any]:
    extra = (row.get("extra_fields") or {}).get("reward_extra_info", {})
    own = {name: float(value) for name, value in extra.items() if name != "score" and isinstance(value, int | float)}
    return {
        **own,
        "input": decode(row["prompts"]),
        "output": decode(row["responses"]),
        "gts": (row.get("reward_model") or {}).get("ground_truth"),
        "score": float(row["rm_scores"].sum()),
        "step": step,
        "uid": key,
    }
