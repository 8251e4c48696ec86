"""Tables of a real study whose every figure is known, as `recast_train.pipeline.real_study` writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.measures.study_changes import METRICS, START
from recast_sim.runs import RunWriter

METHODS = ("grpo", "recast", "sft")
SHARES = {"all_zero": 0.8, "single_hit": 0.15, "multi_hit": 0.05}
REFERENCES = ("popularity", "item_knn", "item_knn_recency", "sequential")
Score = Callable[[str, int, int], float]  # mean score of a user's prompts by method, seed, user


def user_table(score: Score, seeds: int, users: int, methods: tuple[str, ...] = METHODS, setting: str = "one") -> pl.DataFrame:
    """User u has 1 + u % 3 prompts; all metrics are alike."""
    rows = [
        {"setting": setting, "seed": seed, "method": method, "user": user, "prompts": 1 + user % 3}
        | dict.fromkeys(METRICS, (1 + user % 3) * score(method, seed, user))
        for method in (START, *methods)
        for seed in range(seeds)
        for user in range(users)
    ]
    return pl.DataFrame(rows)


def write_study(root: Path, users: pl.DataFrame, config: dict[str, Any] | None = None) -> None:
    """The four tables of a study with the given users, whose validation curves rise by a tenth in two evaluations."""
    settings, methods = users["setting"].unique(maintain_order=True), users["method"].unique(maintain_order=True).to_list()[1:]
    seeds = users["seed"].unique(maintain_order=True)
    known = {f"{name} hr@10": 0.1 for name in REFERENCES}
    starts = [{"setting": s, "seed": seed, "best_step": 7, **SHARES, **known} for s in settings for seed in seeds]
    rates = [
        {"setting": s, "method": m, "learning_rate": 0.01, "at_edge": m == "sft", "draws": m != "sft"}
        for s in settings
        for m in methods
    ]
    evals = [
        {
            "setting": s,
            "seed": seed,
            "method": m,
            "step": step,
            "rollouts": 10 * step,
            "actor_rows": step,
            "actor_tokens": 3 * step,
        }
        | {"optimiser_steps": step, "all_zero_expected": 0.8 - 0.01 * step, **dict.fromkeys(METRICS, 0.1 + 0.05 * step)}
        for s in settings
        for seed in seeds
        for m in methods
        for step in range(3)
    ]
    writer = RunWriter.create(root, "real-study", config or {}, 0)
    for name, table in {"starts": starts, "rates": rates, "evals": evals}.items():
        pl.DataFrame(table).write_parquet(root / f"{name}.parquet")
    users.write_parquet(root / "users.parquet")
    writer.close()
