"""Figures of the real study (`recast-train study`) from its folder alone.

Axes: S seeds, U users, R resamples.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from recast_analysis.measures.budget_curves import Curves, budget_ratio
from recast_analysis.measures.real_learning import learning_changes, of_seeds
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table

START = "start"
METRICS = ("pass_at_1_sampled", "pass_at_1_greedy", "pass@10", "ndcg@10", "hr@10")
CURVES = ("pass_at_1_sampled", "ndcg@10")  # smooth enough for curves on a few hundred validation prompts
_RESAMPLES = 2000
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


class Resampled:
    """Means of a metric over test prompts under resamples of seeds and of users; the same resamples for every method.

    A resample without a prompt of some seed is drawn again.
    """

    def __init__(self, users: pl.DataFrame, seed: int = 0) -> None:
        self.seeds = sorted(users["seed"].unique())
        self._user = {user: place for place, user in enumerate(sorted(users["user"].unique()))}
        rng = np.random.default_rng(seed)
        S, U = len(self.seeds), len(self._user)
        self._weight_RS = rng.multinomial(S, np.full(S, 1 / S), size=_RESAMPLES) / S
        self._weight_RU = rng.multinomial(U, np.full(U, 1 / U), size=_RESAMPLES).astype(np.float64)
        prompts_US = self._table(users.filter(pl.col("method") == START), "prompts")
        while (empty_R := (self._weight_RU @ prompts_US == 0).any(1)).any():  # few users: a seed's mean must be defined
            self._weight_RU[empty_R] = rng.multinomial(U, np.full(U, 1 / U), size=int(empty_R.sum()))

    def means(self, rows: pl.DataFrame, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean of each seed (S,), and the mean over seeds in each resample (R,)."""
        sums_US, count_US = self._table(rows, metric), self._table(rows, "prompts")
        drawn_RS = (self._weight_RU @ sums_US) / (self._weight_RU @ count_US)
        return sums_US.sum(0) / count_US.sum(0), (drawn_RS * self._weight_RS).sum(1)

    def _table(self, rows: pl.DataFrame, column: str) -> NDArray[np.float64]:
        table = np.zeros((len(self._user), len(self.seeds)))
        for place, seed in enumerate(self.seeds):
            own = rows.filter(pl.col("seed") == seed)
            table[[self._user[user] for user in own["user"]], place] = own[column].to_numpy()
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


def _setting(found: StudyTables, label: str) -> dict[str, Any]:
    starts = found.starts.filter(pl.col("setting") == label)
    users = found.users.filter(pl.col("setting") == label)
    resampled = Resampled(users)
    rows = {name: users.filter(pl.col("method") == name) for name in (START, *found.methods)}
    metrics = {}
    for metric in METRICS:
        means = {name: resampled.means(part, metric) for name, part in rows.items()}
        metrics[metric] = {
            name: {
                "value": float(of_seed.mean()),
                "seed_sd": float(of_seed.std(ddof=1)) if len(of_seed) > 1 else None,
                "versus_start": _change(means[name], means[START]),
                "versus_grpo": _change(means[name], means["grpo"]) if "grpo" in means else None,
            }
            for name, (of_seed, _) in means.items()
        }
    known = "targets_seen_before" in starts.columns  # not in studies of older versions, which filtered always
    seen = starts["targets_seen_before"].to_numpy() if known else np.zeros(1)
    return {
        "targets_seen_before": float(seen.mean()),
        "regime": {name: float(starts[name].to_numpy().mean()) for name in SHARES},
        "references": {name: float(starts[f"{name} hr@10"].to_numpy().mean()) for name in _REFERENCES},
        "sft_best_step": starts["best_step"].to_list(),
        "test_prompts": int(rows[START]["prompts"].sum()) // len(resampled.seeds),
        "metrics": metrics,
        "methods": {name: _costs(found, label, name) for name in found.methods},
    }


def _change(ours: tuple[NDArray[np.float64], ...], other: tuple[NDArray[np.float64], ...]) -> dict[str, float] | None:
    """Relative difference of two means with its 95 % interval, and the smallest one seen with 80 % power; None over 0.

    A t interval on the bootstrap's standard error: a percentile interval over five seeds would be too narrow.
    """
    if other[0].mean() == 0 or (other[1] == 0).any():
        return None
    seeds, value = len(ours[0]), float(ours[0].mean() / other[0].mean() - 1)
    error = float((ours[1] / other[1] - 1).std(ddof=1)) * (seeds / max(seeds - 1, 1)) ** 0.5
    # of one seed the interval holds the users' chance alone
    law: Any = scipy.stats.t(seeds - 1) if seeds > 1 else scipy.stats.norm()
    reach, power = float(law.ppf(0.975)), float(law.ppf(0.8))
    return {
        "value": value,
        "low": value - reach * error,
        "high": value + reach * error,
        "smallest_effect": (reach + power) * error,
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
