"""Made-up results of a comparison, of which every figure is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

METRICS = ("pass_at_1_greedy", "pass_at_1_sampled")
_LEVELS = ("pass_at_1_sampled_levels", "pass_at_1_greedy_levels", "recall_at_k_levels", "ndcg_at_k_levels")
_ENDS = ("pass_at_1_sampled_fitted", *_LEVELS)


def write_comparison(
    folder: Path,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    seeds: int = 5,
    metrics: Sequence[str] = METRICS,
) -> None:
    """Tables as `recast_sim.experiments.protocol` writes them: `curves` maps a setting to the scores of its methods, each over
    five evaluations. Seed s scores 1 + s / 1000 times as much; all metrics are alike, a quarter of a gain is sharpening; 100
    rollouts between evaluations."""
    runs = [
        {
            "setting": setting,
            "method": method,
            "learning_rate": 0.1,
            "seed": seed,
            "step": step,
            "rollouts": 100 * step,
            "actor_tokens": 10 * step,
            "optimiser_steps": step,
            "seconds": float(step),
            **dict.fromkeys((*metrics, *_ENDS, "recall_at_k"), score * (1 + seed / 1000)),
            "entropy": 5.0 - score,
            "entropy_levels": 5.0,
            "calibrated_log_likelihood": -5.0 + score,
            "sharpened": (score - scores[0]) / 4,
            "learned": 3 * (score - scores[0]) / 4,
            "before_all_zero": None if step == 0 else 0.9 - 0.1 * step * (method == "recast"),
            "gradient_norm": None if step == 0 else 1.0,
            "gradient_norm_max": None if step == 0 else 3.0 - (method == "recast"),
            "repaired": None if step == 0 else 0.9 - 0.1 * step,
        }
        for setting, methods in curves.items()
        for method, scores in methods.items()
        for seed in range(seeds)
        for step, score in enumerate(scores)
    ]
    rates = [
        {"setting": s, "method": m, "metric": k, "learning_rate": 0.1, "at_edge": False, "draws": m != "sft"}
        for s, methods in curves.items()
        for m in methods
        for k in metrics
    ]
    shares = {"all_zero": 0.85, "single_hit": 0.13, "multi_hit": 0.02, "all_hit": 0.0, "hit_rate": 0.005}
    base = {"hardest_miss": [0.2, 0.5, 0.3], "heldout_prompts": 1000, "best_possible": 0.1, "base_pass_at_1_greedy": 0.01}
    worlds = [{"setting": s, "seed": seed, **shares, **base} for s in curves for seed in range(seeds)]
    folder.mkdir(parents=True)
    for name, rows in {"runs": runs, "rates": rates, "worlds": worlds}.items():
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / f"{name}.parquet")
