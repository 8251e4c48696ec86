"""Dumps for the audit's tests: a table of rollouts made on the spot, and the formats that it can be written in."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recast_analysis.audit.figures_of_audit import audit_summary
from recast_analysis.audit.reading.dump_groups import DumpGroups, read_groups

FIXTURES = Path(__file__).parents[1] / "analysis" / "audit" / "fixtures"


def rollouts(
    groups: int, group_size: int = 8, steps: int = 4, seed: int = 0, beta: tuple[float, float] = (1.0, 4.0)
) -> pl.DataFrame:
    """Rows of i.i.d. groups: step, prompt_id, prompt, completion, target, reward."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), group_size)
    hits = rng.random(len(group)) < np.repeat(rng.beta(*beta, groups), group_size)
    codes = rng.integers(0, 16, (len(group), 3))
    text = [f"<a_{a}><b_{b}><c_{c}>" for a, b, c in codes]
    return pl.DataFrame(
        {
            "step": group * steps // groups + 1,
            "prompt_id": group,
            "prompt": [f"user {g} liked <a_1><b_2><c_3> , next ?" for g in group],
            "completion": text,
            "target": ["<a_1><b_1><c_1>"] * len(group),
            "reward": hits.astype(np.float64),
        }
    )


def as_verl(table: pl.DataFrame) -> pl.DataFrame:
    return table.select(input="prompt", output="completion", gts="target", score="reward", step="step")


def as_trl(table: pl.DataFrame) -> pl.DataFrame:
    return table.select("step", "prompt", "completion", pl.col("reward").alias("hit"), pl.lit(0.0).alias("advantage"))


def write(table: pl.DataFrame, path: Path) -> Path:
    """As its suffix says: .parquet, .csv, or JSON lines."""
    if path.suffix == ".parquet":
        table.write_parquet(path)
    elif path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_ndjson(path)
    return path


def verl_step(step: int, prompts: int = 6, group_size: int = 4, **columns: Callable[[int, int], Any]) -> list[dict[str, Any]]:
    """Rows of a step in verl's columns: prompt p has p % 3 hits, so a third of the groups is all-zero; completions all differ.

    Further columns, or others in place of these, are functions of prompt and rollout.
    """
    return [
        {
            "input": f"user {step}-{prompt} liked <a_1><b_2><c_3>",
            "output": f"<a_{step}><b_{prompt}><c_{rollout}>",
            "gts": f"<a_{prompt}><b_1><c_1>",
            "score": float(rollout < prompt % 3),
            "step": step,
            **{name: value(prompt, rollout) for name, value in columns.items()},
        }
        for prompt in range(prompts)
        for rollout in range(group_size)
    ]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_steps(folder: Path, steps: Iterable[int], **shape: Any) -> Path:
    """A folder as verl leaves it, a file a step; `shape` as in `verl_step`."""
    for step in steps:
        write_lines(folder / f"{step}.jsonl", verl_step(step, **shape))
    return folder


def audited(*paths: Path, **options: Any) -> dict[str, Any]:
    """The summary; `grouped`, which fits nothing, takes a tenth of the time."""
    return audit_summary(read_groups(paths, 0.5, **options))


def grouped(*paths: Path, **options: Any) -> DumpGroups:
    return read_groups(paths, 0.5, **options)


def sizes(groups: DumpGroups) -> list[tuple[int, int]]:
    """Rows a group and how many groups have them."""
    return groups.table["rows"].value_counts().sort("rows").rows()


def write_big(path: Path, rows: int, words: int = 0) -> Path:
    """A dump in verl's columns written part by part: JSON lines, or parquet. Prompts are longer by three times `words`."""
    part, lines = 320_000, path.with_suffix(".jsonl")
    with lines.open("wb") as file:
        for start in range(0, rows, part):
            table = as_verl(rollouts(min(part, rows - start) // 32, 32, 10, seed=start, beta=(1.235, 227.5)))
            longer = pl.concat_str(pl.col("input"), pl.lit(" and the next" * words))
            table.with_columns(longer, pl.col("step") + 10 * start // part).write_ndjson(file)
    if path != lines:
        pl.scan_ndjson(lines).sink_parquet(path)
        lines.unlink()
    return path


if __name__ == "__main__":  # PYTHONPATH=.:tests/helpers python tests/helpers/audit_dumps.py big.jsonl 10000000
    write_big(Path(sys.argv[1]), int(sys.argv[2]))
