"""Constants of a machine from timed steps, and how far the model is off on steps that were not fitted.

A timed step is a mapping as `benchmarks/step_cells.py` writes it. Errors are relative, so that a small phase counts as much as
a large one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from recast_train.step_model.net import Net
from recast_train.step_model.setting import StepSetting
from recast_train.step_model.step_seconds import columns
from recast_train.step_model.step_work import PHASES, step_work

LEVELS, SPECIAL = 3, 2  # of the timed catalogs: codes of a semantic ID, tokens that are no codes
WIDTH = 4  # bytes of fp32
_LINEAR = 0.1  # an error of log seconds from which on it counts linearly


def timed_setting(row: Mapping[str, Any]) -> StepSetting:
    """The setting of a timed step; the rows that a prompt kept are those that were counted."""
    sizes = row["sizes"]
    heads, vocabulary = row["heads"], SPECIAL + sum(sizes)
    net = Net(row["layers"], row["hidden"], heads, heads, row["hidden"] // heads, row["feed_forward"], vocabulary, False)
    counts, prompts = row["counts"], row["prompts"]
    return StepSetting(
        net,
        prompt=1 + LEVELS * row["items"],
        response=LEVELS,
        group_size=row["group_size"],
        kept=counts["actor_rows"] / row["updates"] / prompts,
        prompts=prompts,
        codes=round(sum(sizes) / LEVELS),
        updates=row["updates"],
    )


def fit(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Seconds a FLOP, a byte, an operation and a pass (4,): least errors of log seconds over all phases, errors beyond a tenth
    linear, so that a phase that was disturbed pulls no more than others."""
    return _least_errors(*_table(rows), np.array([1e-11, 1e-10, 1e-5, 1e-3]))


def ratios(rows: Sequence[Mapping[str, Any]], constants: NDArray[np.float64]) -> dict[str, list[float]]:
    """Modelled over measured: seconds of every step by phase and of the whole ("step"), and what a step of the first method
    takes over one of the second, for each two rows."""
    counted, seconds = _table(rows)
    modelled = (counted @ constants).reshape(len(rows), -1)
    measured = seconds.reshape(len(rows), -1)
    found = {phase: (modelled[:, at] / measured[:, at]).tolist() for at, phase in enumerate(PHASES)}
    whole = modelled.sum(1) / measured.sum(1)
    apart = [float(model / clock) for model, clock in factors(rows, constants)]
    return found | {"step": whole.tolist(), "factor of the methods": apart}


def by_flops_alone(fitted: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Modelled over measured seconds of every whole step of `rows` where a FLOP takes what it takes in the median step fitted:
    what the other constants are worth."""
    flops, measured = _whole(fitted, np.array([1.0, 0, 0, 0]))
    flop = np.exp(np.median(np.log(measured / flops)))
    modelled, measured = _whole(rows, np.array([flop, 0, 0, 0]))
    return (modelled / measured).tolist()


def factors(rows: Sequence[Mapping[str, Any]], constants: NDArray[np.float64]) -> list[tuple[float, float]]:
    """What a whole step of the first method takes over one of the second, modelled and measured, for each two rows."""
    modelled, measured = (seconds.reshape(-1, 2) for seconds in _whole(rows, constants))
    return list(zip(modelled[:, 0] / modelled[:, 1], measured[:, 0] / measured[:, 1], strict=True))


def worst(values: Sequence[float]) -> float:
    """The largest factor that a ratio is off by, at least 1."""
    return float(np.exp(np.abs(np.log(values)).max()))


def median(values: Sequence[float]) -> float:
    """The median of those factors."""
    return float(np.exp(np.median(np.abs(np.log(values)))))


def fit_link(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Bytes/s that one of two processes receives and seconds of a collective, fitted alike."""
    counted = np.array([[row["bytes"] / 2, 1.0] for row in rows])
    byte, latency = _least_errors(counted, np.array([row["seconds"] for row in rows]), np.array([1e-9, 1e-4]))
    return float(1 / byte), float(latency)


def _least_errors(
    counted: NDArray[np.float64], seconds: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    def errors(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(counted @ np.exp(logs)) - np.log(seconds)

    return np.exp(least_squares(errors, np.log(start), loss="soft_l1", f_scale=_LINEAR).x)


def _whole(
    rows: Sequence[Mapping[str, Any]], constants: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Modelled and measured seconds of whole steps (rows,)."""
    counted, seconds = _table(rows)
    return (counted @ constants).reshape(len(rows), -1).sum(1), seconds.reshape(len(rows), -1).sum(1)


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts (rows * phases, 4) and seconds (rows * phases,)."""
    counted = [columns(step_work(timed_setting(row))[phase], WIDTH) for row in rows for phase in PHASES]
    return np.array(counted), np.array([row["seconds"][phase] for row in rows for phase in PHASES])
