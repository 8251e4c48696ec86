"""The claims against real runs: `recast-train study` (several seeds) and `recast-train run` (one, so nothing is decided).

Axes: R rungs of a ladder of sizes, S seeds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recast_analysis.claims.curves import judged_gain, repair_row, scale_row, training_rows, variance_row
from recast_analysis.claims.measurement import Row, judged, judged_factor, over_seeds
from recast_analysis.claims.paper import ACTOR, ACTOR_TOKENS, ALL_ZERO, MFU, NEAR, STEP
from recast_analysis.claims.simulated import REGIMES
from recast_analysis.measures.crossed_means import scored
from recast_analysis.measures.metric_names import GREEDY, SAMPLED
from recast_analysis.measures.statistics import Interval
from recast_analysis.measures.study_changes import StudyTables, measure_study
from recast_analysis.measures.trajectories import Trajectory, by_method, by_setting, read_trajectories
from recast_analysis.reports.real.run import read_results
from recast_sim.runs.reader import read_manifest

_PAPER_GROUP = 32
_SECONDS = ("rollout", "reward", "signal", "old", "reference", "actor")


def study_rows(root: Path) -> list[Row]:
    """A finished real study. Raises RunError where it is not finished."""
    summary, found, config = measure_study(root), StudyTables.read(root), read_manifest(root)["config"]
    rows = []
    for label, setting in summary["settings"].items():
        shares = found.starts.filter(pl.col("setting") == label)["all_zero"].to_numpy()
        rows += _regime(shares, f"{label}: all-zero share at the start, not tuned to", config["setting"]["evaluation"])
        for metric in (SAMPLED, GREEDY):
            changes = {name: row["versus_grpo"] for name, row in setting["metrics"][metric].items()}
            where = f"{label}, test prompts"
            if change := changes.get("recast"):
                rows.append(judged_gain(_interval(change, summary["seeds"]), f"{where}: recast over grpo, minus 1", metric))
            if change := changes.get("repair_only"):
                rows.append(repair_row(_interval(change, summary["seeds"]), where, metric))
    if any(key.startswith("model.") for point in config["points"] for key in point):
        rows += [row for metric in (SAMPLED, GREEDY) for row in _scale(found, metric)]
    return rows + _of_training(root)


def run_rows(root: Path) -> list[Row]:
    """A finished real run, one seed. Raises RunError where it is not finished."""
    results, config = read_results(root), read_manifest(root)["config"]
    share = np.array([results["sft"]["all_zero"]])
    rows = _regime(share, "all-zero share at the start, not tuned to", config["evaluation"])
    for metric in (SAMPLED, GREEDY):
        scores = {name: row[metric] for name, row in results["methods"].items()}
        for name, row_of in {"recast": judged_gain, "repair_only": repair_row}.items():
            if name in scores and scores.get("grpo"):
                gain = scores[name] / scores["grpo"] - 1
                rows.append(row_of(Interval(gain, None, None, 1), f"test prompts: {name} over grpo, minus 1", metric))
    return rows + _of_training(root)


def _of_training(root: Path) -> list[Row]:
    runs = read_trajectories(root)
    rows = training_rows(runs, final_scores=False)
    for setting, own in by_setting(runs).items():
        methods = by_method(own)
        if {"grpo", "recast"} <= set(methods):
            rows += _probed(methods, setting or "one start")
            rows += _costs(methods["grpo"], methods["recast"], setting or "one start")
    return rows


def _regime(share_S: NDArray[np.float64], words: str, evaluation: dict[str, Any]) -> list[Row]:
    if evaluation["group_size"] != _PAPER_GROUP:
        return []
    return [judged(1, REGIMES, over_seeds(share_S), words, lambda i: abs(i.value - ALL_ZERO) < NEAR)]


def _interval(change: dict[str, Any], seeds: int) -> Interval:
    return Interval(change["value"], change["low"], change["high"], seeds)


def _scale(found: StudyTables, metric: str) -> list[Row]:
    """Claim 4 of a study whose points are sizes; none where a score of some seed is 0."""
    pairs_RS = []
    for label in found.settings:
        users = found.users.filter(pl.col("setting") == label)
        seeds, asked = (sorted(users[column].unique()) for column in ("seed", "user"))
        methods = (users.filter(pl.col("method") == name) for name in ("recast", "grpo"))
        pairs_RS.append([scored(rows, metric, seeds, asked).of_seed_S for rows in methods])
    scores = np.array(pairs_RS)
    if (scores == 0).any():
        return []
    return [scale_row(np.log(scores[:, 0] / scores[:, 1]), found.settings, "test prompts", metric)]


def _probed(methods: dict[str, list[Trajectory]], where: str) -> list[Row]:
    """Claim 11 where the gradients' noise was probed and their squared norm can be told from 0."""
    recast, grpo = (np.array([_relative_variance(run) for run in methods[name]]) for name in ("recast", "grpo"))
    if not (np.isfinite(recast).all() and np.isfinite(grpo).all()):
        return []
    return [variance_row(recast, grpo, methods["grpo"][0].training["prompts_per_step"], where)]


def _relative_variance(run: Trajectory) -> float:
    if "gradient_variance" not in run.steps.columns:
        return np.inf
    probes = run.steps.drop_nulls("gradient_variance")
    square = float(probes["gradient_norm_squared"].to_numpy().mean()) if len(probes) else 0.0
    return float(probes["gradient_variance"].to_numpy().mean()) / square if square > 0 else np.inf


def _costs(grpo: Sequence[Trajectory], recast: Sequence[Trajectory], where: str) -> list[Row]:
    """Claims 5, 6 and 8 of the run's own counts and clocks; its peak memory is the process's and tells no method apart."""

    def ratio(figure: Callable[[Trajectory], float]) -> Interval:
        return over_seeds(np.array([figure(a) / figure(b) for a, b in zip(grpo, recast, strict=True)]))

    shared = f"{where}, prompt computed once a group in both"
    step = f"{shared}: median seconds of a step, grpo over recast"
    rows = [
        judged_factor(5, f"actor tokens {ACTOR_TOKENS:.1f}x", ratio(_tokens), f"{shared}: counted", ACTOR_TOKENS, 1, fewest=1),
        judged_factor(
            5, f"actor update {ACTOR:.2f}x", ratio(lambda run: _seconds(run, ("actor",))), f"{shared}: median seconds", ACTOR, 1
        ),
        judged_factor(6, f"whole step {STEP:.2f}x", ratio(lambda run: _seconds(run, _SECONDS)), step, STEP, 1),
    ]
    if all(run.steps["mfu"].null_count() == 0 for run in (*grpo, *recast)):
        gain = over_seeds(np.array([100 * (_mfu(b) / _mfu(a) - 1) for a, b in zip(grpo, recast, strict=True)]))
        rows.append(judged_factor(8, f"actor MFU +{MFU} %", gain, f"{shared}: percent, recast over grpo", MFU, 0))
    return rows


def _tokens(run: Trajectory) -> float:
    return float(run.steps["actor_tokens"][-1]) / len(run.steps)


def _seconds(run: Trajectory, parts: Sequence[str]) -> float:
    return float(np.median(sum(run.steps[f"seconds_{part}"].to_numpy() for part in parts)))


def _mfu(run: Trajectory) -> float:
    return float(run.steps["mfu"].to_numpy().mean())
