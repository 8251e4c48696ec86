"""`recast-sim theory`: what arithmetic alone says of a hit rate and a group size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Field, NonNegativeFloat

from recast_sim.cli.shared import folder
from recast_sim.closed_forms import gradient_weights as weights
from recast_sim.closed_forms import iid_groups as forms
from recast_sim.commandline import Common
from recast_sim.configio import ConfigError
from recast_sim.runs import RunWriter, atomic_file

_PAPER_BETA = (1.235, 227.5)  # 85 / 13 / 2 at G = 32 (arXiv 2604.22169)
_SIZES = (8, 16, 32, 64, 128, 512)
_LARGEST = 4096
_RATES_P = np.logspace(-4, np.log10(0.5), 120)
_SIZES_DRAWN = sorted({round(float(G)) for G in np.logspace(1, 10, 73, base=2)})  # 2..1024
_REGIMES = ("all_zero", "single_hit", "multi_hit", "all_hit")


@dataclass(frozen=True)
class Theory(Common):
    """Closed forms at a hit rate and a group size: regimes, weights, costs.

    Attributes:
        hit_rate: of a prompt, strictly between 0 and 1; default the mean of --beta, else 0.0054.
        group: rollouts a prompt, G.
        beta: a and b of the prompts' hit rates; default a = 1.235, the paper's, with --hit-rate as mean (b = 227.5 at 0.0054).
        constructors: whose weights to show; default all that have a closed form at that group size.
        prompt_cost: what a group costs besides its rollouts, in rollouts, for the best group size.
    """

    hit_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    group: Annotated[int, Field(ge=2, le=_LARGEST)] = 32
    beta: tuple[float, float] | None = None
    constructors: tuple[str, ...] = ()
    prompt_cost: NonNegativeFloat = 0.0


def theory(command: Theory) -> None:
    from recast_analysis.reports.theory import report as theory_report
    from recast_analysis.terminal import finish

    hit_rate, beta = _rates(command)
    names = _checked(command)
    try:
        summary = _summary(hit_rate, beta, command.group, names, command.prompt_cost)
        curves = _curves(hit_rate, beta, command.group, names)
    except ValueError as error:  # rates so extreme that no group is learnable in double precision
        raise ConfigError(f"hit_rate {hit_rate:g}, beta {beta}: {error}") from None
    root = folder(command, "theory")
    config = {key: summary[key] for key in ("hit_rate", "group_size", "beta", "prompt_cost")} | {"constructors": names}
    writer = RunWriter.create(root, "theory", config, command.seed)
    with atomic_file(root / "curves.parquet") as temporary:
        curves.write_parquet(temporary)
    writer.close(summary=summary)
    found = theory_report(root)
    (figure,) = found.save_figures(root)
    finish(command, found.summary | {"run": str(root), "figure": figure}, found, "recast-sim gradients")


def _rates(command: Theory) -> tuple[float, tuple[float, float]]:
    p = command.hit_rate
    if command.beta is None:
        return (0.0054, _PAPER_BETA) if p is None else (p, (_PAPER_BETA[0], _PAPER_BETA[0] * (1 - p) / p))
    a, b = command.beta
    try:
        forms.check_beta(a, b)
    except ValueError as error:
        raise ConfigError(f"beta: {error}") from None
    return a / (a + b) if p is None else p, (a, b)


def _checked(command: Theory) -> tuple[str, ...]:
    fit = tuple(name for name, form in weights.WEIGHTS.items() if form.least <= command.group)
    for name in command.constructors:
        if name not in fit:
            raise ConfigError(
                f"constructors: {name!r} has no closed form at group {command.group}; choose from {', '.join(fit)}"
            )
    return tuple(dict.fromkeys(command.constructors)) or fit


def _fractions(hit_rate: float, beta: tuple[float, float]) -> dict[str, Callable[[int], float]]:
    """Learnable fraction as a function of G where prompts are all alike, and where they are Beta-mixed."""
    return {
        "homogeneous": lambda G: float(forms.learnable_fraction(hit_rate, G)),
        "beta": lambda G: forms.learnable_fraction_beta(*beta, G),
    }


def _summary(hit_rate: float, beta: tuple[float, float], G: int, names: tuple[str, ...], prompt_cost: float) -> dict[str, Any]:
    fractions = _fractions(hit_rate, beta)
    regimes = {"homogeneous": forms.regime_given_hit_rates([hit_rate], G), "beta": forms.beta_regime(*beta, G)}
    return {
        "hit_rate": hit_rate,
        "group_size": G,
        "beta": list(beta),
        "beta_mean": beta[0] / sum(beta),
        "regimes": {kind: dict(zip(_REGIMES, map(float, shares), strict=True)) for kind, shares in regimes.items()},
        "learnable": [
            {"group_size": size} | {kind: fraction(size) for kind, fraction in fractions.items()}
            for size in sorted({*_SIZES, G})
        ],
        "weights": {name: _weight(name, hit_rate, G) for name in names},
        "rollouts_per_kept_group": {
            kind: float(forms.rollouts_per_kept_group(fraction(G), G)) for kind, fraction in fractions.items()
        },
        "best_group_size": {kind: forms.best_group_size(fraction, prompt_cost) for kind, fraction in fractions.items()},
        "prompt_cost": prompt_cost,
    }


def _weight(name: str, hit_rate: float, G: int) -> dict[str, Any]:
    form = weights.WEIGHTS[name]
    return {"weight": float(weights.weight(name, hit_rate, G)), "per": form.per, "formula": form.formula}


def _curves(hit_rate: float, beta: tuple[float, float], G: int, names: tuple[str, ...]) -> pl.DataFrame:
    """Rows (curve, constructor, group_size, p, value): weights over p at G, learnable fractions and dapo's cost over G."""
    frames = [_frame("weight", name, G, _RATES_P, weights.weight(name, _RATES_P, G)) for name in names]
    cost = forms.rollouts_per_kept_group(forms.learnable_fraction(_RATES_P, G), G)
    frames.append(_frame("rollouts_per_kept_group", "dapo", G, _RATES_P, cost))
    sizes = np.array(_SIZES_DRAWN)
    for kind, fraction in _fractions(hit_rate, beta).items():
        p = hit_rate if kind == "homogeneous" else beta[0] / sum(beta)
        learnable = np.array([fraction(int(size)) for size in sizes])
        frames.append(_frame(f"learnable_{kind}", None, sizes, p, learnable))
        frames.append(_frame(f"rollouts_per_kept_group_{kind}", "dapo", sizes, p, sizes / learnable))
    return pl.concat(frames)


def _frame(curve: str, constructor: str | None, group_size: Any, p: Any, value: np.ndarray) -> pl.DataFrame:
    columns = {"curve": curve, "constructor": constructor, "group_size": group_size, "p": p}
    schema = {"curve": pl.String, "constructor": pl.String, "group_size": pl.Int64, "p": pl.Float64, "value": pl.Float64}
    spread = {name: np.broadcast_to(column, value.shape) for name, column in columns.items() if name in ("group_size", "p")}
    named = {name: [column] * len(value) for name, column in columns.items() if name not in spread}
    return pl.DataFrame({**named, **spread, "value": value}, schema=schema)
