"""Dumps for the audit's tests: a table of rollouts made on the spot, and the formats that it can be written in."""

import sys
from pathlib import Path

import numpy as np
import polars as pl

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
