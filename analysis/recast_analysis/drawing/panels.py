"""What panels of several figures share: lines with bands over seeds, and curves that coincide drawn once.

Axes: S seeds, E rows of a run (steps or evaluations).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from recast_analysis.drawing.looks import Dash
from recast_analysis.measures.statistics import mean_band

BAND = "lines are means over seeds, bands their 95 % t intervals"
_LONGEST = 200  # points of a drawn line


def draw_band(
    axis: Axes, x_E: NDArray[Any], values_SE: NDArray[np.float64], colour: str, label: str, style: Dash = "-", band: bool = True
) -> None:
    """The mean over seeds, and its 95 % t interval as a band where there are several (and `band`)."""
    thin = slice(None, None, -(-len(x_E) // _LONGEST) or 1)
    low, middle, high = mean_band(values_SE[:, thin])
    axis.plot(x_E[thin], middle, color=colour, label=label, linestyle=style, marker="." if len(x_E) == 1 else None)
    if band and len(values_SE) > 1:
        axis.fill_between(x_E[thin], low, high, color=colour, alpha=0.2, linewidth=0)


def stacked(frames: Sequence[pl.DataFrame], column: str, smooth: int = 1) -> NDArray[np.float64]:
    """A column of several runs, (S, E): cut to the shortest run, a running mean over `smooth` rows."""
    length = min(len(frame) for frame in frames)
    table = np.stack([frame[column].to_numpy()[:length].astype(np.float64) for frame in frames])
    if smooth == 1:
        return table
    return np.apply_along_axis(np.convolve, 1, table, np.full(smooth, 1 / smooth), mode="valid")


def same_curves(curves: Mapping[str, Sequence[NDArray[Any]]]) -> list[list[str]]:
    """Names whose curves are alike, grouped: drawn once, labelled together."""
    groups: list[list[str]] = []
    for name, curve in curves.items():
        for group in groups:
            if all(a.shape == b.shape and np.allclose(a, b, rtol=1e-9) for a, b in zip(curves[group[0]], curve, strict=True)):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def seeds_text(count: int) -> str:
    """How many seeds a figure holds, and what its bands are."""
    return "One seed, no interval" if count == 1 else f"{count} seeds; {BAND}"
