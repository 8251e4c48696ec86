"""Learning told from sharpening in real runs: changes from the start, with intervals. Axes: S seeds, or users of one seed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recast_analysis.measures.statistics import mean_interval

CHANGES = ("pass_at_1_greedy_levels", "hr@10_levels", "calibrated_log_likelihood", "pass_at_1_sampled")
PARTS = ("sharpened", "learned")
Values = dict[str, dict[str, NDArray[np.float64]]]  # by model and figure, (S,)


def learning_changes(values: Values) -> dict[str, dict[str, Any]]:
    """Intervals of each model's changes from "start", and its mean entropy and fitted temperature.

    Args:
        values: by model and figure, one value a seed or user, (S,).
    """
    start = values["start"]
    rows: dict[str, dict[str, Any]] = {}
    for name, own in values.items():
        changes = {key: asdict(mean_interval(own[key] - start[key])) for key in CHANGES if key in own}
        parts = {key: asdict(mean_interval(own[key])) for key in PARTS}
        rows[name] = changes | parts | {key: float(own[key].mean()) for key in ("entropy", "temperature")}
    return rows


def of_users(table: pl.DataFrame, means: Mapping[str, Mapping[str, float]]) -> Values:
    """Values a user whose mean is that over prompts, from a row a model and prompt; figures of all prompts as they are."""
    found = {}
    for name, figures in means.items():
        rows = table.filter(model=name)
        users = rows.group_by("user").agg(pl.exclude("user", "model").sum()).sort("user")
        scale = len(users) / len(rows)
        columns = {key: scale * users[key].to_numpy().astype(np.float64) for key in users.columns if key != "user"}
        one = {key: np.full(len(users), value) for key, value in figures.items() if key not in columns}
        found[name] = one | columns
    return found


def of_seeds(table: pl.DataFrame, models: Sequence[str]) -> Values:
    """Values a seed, from a row a method and seed."""
    frames = {name: table.filter(method=name).sort("seed") for name in models}
    return {
        name: {key: rows[key].to_numpy().astype(np.float64) for key in rows.columns if key not in ("setting", "seed", "method")}
        for name, rows in frames.items()
    }
