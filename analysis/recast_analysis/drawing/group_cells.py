"""Rollout groups as pictures: one cell a row of the batch, its reward, score or advantage in it.

Axes: P prompts (groups), G rollouts of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from recast_analysis.drawing.style import apply_style

_REMOVED, _FRAME = "#dddddd", "#ee9944"


@dataclass(frozen=True)
class RowPanel:
    """One panel.

    Attributes:
        title: what the numbers are.
        values_PG: a number a row.
        kept_PG: bool, rows that the actor sees; the others are grey and empty. Default all.
        anchor_slot_P: the row of each group that holds an anchor, drawn with a frame; -1 where none. Default none.
    """

    title: str
    values_PG: ArrayLike
    kept_PG: ArrayLike | None = None
    anchor_slot_P: ArrayLike | None = None


def rows_figure(panels: Sequence[RowPanel], groups: Sequence[str], columns: int = 3) -> Figure:
    """Panels side by side, `columns` to a line, with a line for each of the P `groups`, by its name.

    Raises:
        ValueError: no panel, or one whose values are not (P, G).
    """
    if not panels:
        raise ValueError("panels: none given; give at least one")
    apply_style()
    lines, width = -(-len(panels) // columns), min(columns, len(panels))
    size = (1.5 + 3.4 * width, 0.7 + lines * (0.6 + 0.36 * len(groups)))
    figure, axes = plt.subplots(lines, width, figsize=size, squeeze=False, sharey=True)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw(axis, panel, groups)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def _draw(axis: Axes, panel: RowPanel, groups: Sequence[str]) -> None:
    values_PG = np.asarray(panel.values_PG, dtype=np.float64)
    if values_PG.ndim != 2 or len(values_PG) != len(groups):
        raise ValueError(f"values_PG: shape {values_PG.shape} of panel {panel.title!r} must be ({len(groups)}, rollouts)")
    kept_PG = np.ones(values_PG.shape, bool) if panel.kept_PG is None else np.asarray(panel.kept_PG, bool)
    limit = max(1.0, float(np.abs(values_PG).max()))
    axis.imshow(np.where(kept_PG, values_PG, np.nan), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for p, g in np.argwhere(kept_PG):
        ink = "white" if abs(values_PG[p, g]) > 0.7 * limit else "black"
        axis.text(g, p, f"{values_PG[p, g]:.2g}", ha="center", va="center", fontsize=7, color=ink)
    for p, slot in enumerate(_slots(panel, len(groups))):
        if slot >= 0:
            axis.add_patch(Rectangle((slot - 0.46, p - 0.46), 0.92, 0.92, fill=False, linewidth=2.2, edgecolor=_FRAME))
    axis.set_facecolor(_REMOVED)
    axis.set(xticks=range(values_PG.shape[1]), yticks=range(len(groups)), yticklabels=groups, xlabel="rollout")
    axis.set_title(panel.title, fontsize=9)
    axis.grid(False)


def _slots(panel: RowPanel, groups: int) -> NDArray[np.int64]:
    return np.full(groups, -1) if panel.anchor_slot_P is None else np.asarray(panel.anchor_slot_P, np.int64)
