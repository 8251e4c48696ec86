"""Figures of the real study (`recast-train study`) from its folder alone.

Axes: S seeds.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recast_analysis.measures.budget_curves import Curves, budget_ratio
from recast_analysis.measures.crossed_means import Scored, relative_change, scored
from recast_analysis.measures.real_learning import learning_changes, of_seeds
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table

START = "start"
METRICS = ("pass_at_1_greedy", "ndcg@10", "hr@10", "pass@10", "pass_at_1_sampled")
CURVES = ("pass_at_1_greedy", "ndcg@10")  # what no temperature buys
_REFERENCES = ("popularity", "item_knn", "item_knn_recency", "sequential")
SHARES = ("all_zero", "single_hit", "multi_hit")


@dataclass(frozen=True)
class StudyTables:
    """What `recast_train.pipeline.real_study` wrote: a row a start, a tuned rate, a validation evaluation, a user."""

    starts: pl.DataFrame
    rates: pl.DataFrame
    evals: pl.DataFrame
    users: pl.DataFrame

    @classmethod
    def read(cls, root: Path) -> "StudyTables":
        """Raises RunError where a table is missing or has no rows: the study was not finished."""
        try:
            return cls(*(_rows_of(root / f"{name}.parquet") for name in ("starts", "rates", "evals", "users")))
        except RunError as error:
            raise RunError(f"{root}: no finished study ({error}); go on with --resume") from error

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(self.rates["setting"]))

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.rates["method"]))

    def curves(self, setting: str, method: str, metric: str) -> Curves:
        """Validation curves of one metric, a row a seed."""
        rows = self.evals.filter(pl.col("setting") == setting, pl.col("method") == method).sort("seed", "step")
        frames = {int(seed): frame for (seed,), frame in rows.partition_by("seed", as_dict=True).items()}
        return Curves.of(frames, metric)


def _rows_of(file: Path) -> pl.DataFrame:
    table = read_table(file, RunError)
    if table.is_empty():
        raise RunError(f"{file}: has no rows")
    return table


def measure_study(root: Path) -> dict[str, Any]:
    """Every figure of a real study, JSON-ready. Raises RunError: the study is not finished."""
    found, file = StudyTables.read(root), root / "learning.parquet"
    told = read_table(file, RunError) if file.exists() else None  # not asked for in every study
    models = (START, *found.methods)

    def learning(label: str) -> dict[str, Any]:
        return {} if told is None else learning_changes(of_seeds(told.filter(setting=label), models))

    return {
        "seeds": len(found.evals["seed"].unique()),
        "methods": found.methods,
        "settings": {label: _setting(found, label) | {"learning": learning(label)} for label in found.settings},
        "run": str(root),
    }


def changes_over(root: Path, over: str) -> dict[str, Any]:
    """The start's and each method's change over one of them on test prompts, of every setting and metric, JSON-ready.

    Raises:
        RunError: the study is not finished, or has no method of that name.
    """
    found = StudyTables.read(root)
    names = (START, *found.methods)
    if over not in names:
        raise RunError(f"over: {over!r} is not in {root}; choose from {', '.join(map(repr, names))}")
    changes = {
        label: {
            metric: {name: relative_change(own, models[over]) for name, own in models.items()}
            for metric, models in _scored(found, label).items()
        }
        for label in found.settings
    }
    return {"run": str(root), "over": over, "seeds": len(found.evals["seed"].unique()), "settings": changes}


def _scored(found: StudyTables, label: str) -> dict[str, dict[str, Scored]]:
    """Of each metric the start's and each method's scores of test prompts."""
    users = found.users.filter(pl.col("setting") == label)
    seeds, asked = (sorted(users[column].unique()) for column in ("seed", "user"))
    rows = {name: users.filter(pl.col("method") == name) for name in (START, *found.methods)}
    return {metric: {name: scored(part, metric, seeds, asked) for name, part in rows.items()} for metric in METRICS}


def _setting(found: StudyTables, label: str) -> dict[str, Any]:
    starts = found.starts.filter(pl.col("setting") == label)
    users = found.users.filter(pl.col("setting") == label, pl.col("method") == START)
    metrics = {}
    for metric, models in _scored(found, label).items():
        several = len(models[START].of_seed_S) > 1
        metrics[metric] = {
            name: {
                "value": float(own.of_seed_S.mean()),
                "seed_sd": float(own.of_seed_S.std(ddof=1)) if several else None,
                "versus_start": relative_change(own, models[START]),
                "versus_grpo": relative_change(own, models["grpo"]) if "grpo" in models else None,
            }
            for name, own in models.items()
        }
    known = "targets_seen_before" in starts.columns  # not in studies of older versions, which filtered always
    seen = starts["targets_seen_before"].to_numpy() if known else np.zeros(1)
    return {
        "targets_seen_before": float(seen.mean()),
        "regime": {name: float(starts[name].to_numpy().mean()) for name in SHARES},
        "references": {name: float(starts[f"{name} hr@10"].to_numpy().mean()) for name in _REFERENCES},
        "sft_best_step": starts["best_step"].to_list(),
        "test_prompts": int(users["prompts"].sum()) // len(users["seed"].unique()),
        "metrics": metrics,
        "methods": {name: _costs(found, label, name) for name in found.methods},
    }


def _costs(found: StudyTables, label: str, name: str) -> dict[str, Any]:
    (rate,) = found.rates.filter(pl.col("setting") == label, pl.col("method") == name).iter_rows(named=True)
    evals = found.evals.filter(pl.col("setting") == label, pl.col("method") == name)
    last = evals.group_by("seed").agg(pl.all().sort_by("step").last())
    ratios = {}
    if "grpo" in found.methods:
        for metric in CURVES:
            pair = [found.curves(label, method, metric) for method in (name, "grpo")]
            ratios[metric] = asdict(budget_ratio(pair[:1], pair[1:], "optimiser_steps"))
    return {
        "learning_rate": rate["learning_rate"],
        "at_edge": rate["at_edge"],
        "draws": rate["draws"],
        **{column: float(last[column].to_numpy().mean()) for column in ("rollouts", "actor_rows", "actor_tokens")},
        "all_zero_expected": float(last["all_zero_expected"].to_numpy().mean()),
        "steps_ratio_to_grpo": ratios,
    }
