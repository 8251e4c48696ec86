"""Dumps for the audit's tests: a table of rollouts made on the spot, and the formats that it can be written in."""

from pathlib import Path

import numpy as np
import polars as pl

FIXTURES = Path(__file__).parent / "analysis" / "fixtures"


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
