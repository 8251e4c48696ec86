"""The Beta-binomial fit of hits per group, and what it says of other group sizes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from recast_sim.closed_forms.hit_counts import HitCountFit, fit_hit_counts
from recast_sim.closed_forms.hit_prediction import predict
from recast_sim.closed_forms.iid_groups import (
    best_group_size,
    learnable_fraction,
    learnable_fraction_beta,
    mean_absolute_advantage,
)

SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
_QUARTERS_FROM = 8  # steps a run must have for its ends to be fitted apart


def fit_windows(table: pl.DataFrame, group_size: int, prompt_cost: float | None) -> dict[str, dict[str, Any]]:
    """Fits to all steps and, in runs of 8 steps and more, to the first and the last quarter of them.

    Args:
        table: groups.
        group_size: the dump's own G, added to the sizes.
        prompt_cost: mean length of a prompt in responses; None where it is not known.
    """
    steps = table["step"].unique().sort()
    windows = {"all steps": table}
    if len(steps) >= _QUARTERS_FROM:
        quarter = len(steps) // 4
        windows["first quarter"] = table.filter(pl.col("step") < steps[quarter])
        windows["last quarter"] = table.filter(pl.col("step") >= steps[-quarter])
    sizes = sorted({*SIZES, max(2, group_size)})
    return {name: _fit(rows, sizes, prompt_cost) for name, rows in windows.items()}


def _fit(table: pl.DataFrame, sizes: Sequence[int], prompt_cost: float | None) -> dict[str, Any]:
    hits, rows = table["hits"].to_numpy(), table["rows"].to_numpy()
    try:
        fit = fit_hit_counts(hits, rows)
    except ValueError as error:
        return {"groups": table.height, "refused": str(error)}
    fraction = _learnable(fit)
    return {
        "groups": table.height,
        "a": _finite(fit.a),
        "b": _finite(fit.b),
        "a_interval": [_finite(end) for end in fit.a_interval],
        "b_interval": [_finite(end) for end in fit.b_interval],
        "mean": fit.mean,
        "mean_interval": list(fit.mean_interval),
        "chi_square": fit.gof_statistic,
        "dof": fit.dof,
        "p_value": fit.p_value,
        "observed_K": np.bincount(hits, minlength=rows.max() + 1).tolist(),
        "expected_K": _expected(fit, rows),
        "sizes": [
            {
                "group_size": found.group_size,
                "all_zero": found.all_zero,
                "all_zero_interval": list(found.all_zero_interval),
                "learnable": found.learnable,
                "learnable_interval": list(found.learnable_interval),
                "learnable_per_1000_rollouts": 1000 * found.learnable / found.group_size,
                "mean_absolute_advantage": mean_absolute_advantage(fit.hits_pmf(found.group_size)),
            }
            for found in predict(fit, hits, rows, sizes)
        ],
        "best_group_size": {
            "prompt_free": best_group_size(fraction),
            "prompt_paid_once": None if prompt_cost is None else best_group_size(fraction, prompt_cost),
            "prompt_cost": prompt_cost,
        },
    }


def _expected(fit: HitCountFit, rows: np.ndarray) -> list[float]:
    """Groups that the fit expects with K = 0, 1, ... hits."""
    expected_K = np.zeros(rows.max() + 1)
    for size, groups in zip(*np.unique(rows, return_counts=True), strict=True):
        expected_K[: size + 1] += groups * (fit.hits_pmf(int(size)) if size > 1 else np.array([1 - fit.mean, fit.mean]))
    return expected_K.tolist()


def _learnable(fit: HitCountFit) -> Callable[[int], float]:
    if fit.binomial_limit:
        return lambda G: float(learnable_fraction(fit.mean, G))
    return lambda G: learnable_fraction_beta(fit.a, fit.b, G)


def _finite(value: float) -> float | None:
    """JSON has no infinity: None stands for it."""
    return float(value) if np.isfinite(value) else None
