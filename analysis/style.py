"""One style for every figure: colour-blind-safe, one colour a constructor, vector and PNG."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

_FIXED = ("grpo", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative", "base", "item_knn", "popularity")
REGIME_COLOURS = {"all_zero": "#bbbbbb", "single_hit": "#ee9944", "multi_hit": "#4477aa", "all_hit": "#228833"}


def apply_style() -> None:
    """Set the shared look; call it before making a figure."""
    sns.set_theme(context="paper", style="ticks", font_scale=1.05, rc={"axes.grid": True, "grid.alpha": 0.3})


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each constructor, the same in every figure."""
    palette = sns.color_palette("colorblind", len(_FIXED)).as_hex()
    known: dict[str, str] = dict(zip(_FIXED, palette, strict=True))
    extra = iter(sns.color_palette("dark", 10).as_hex() * 4)
    return {name: known.get(name) or next(extra) for name in names}


def save_figure(figure: Figure, path: Path, vector: str = "pdf") -> Path:
    """Write `path` as PNG and the same figure beside it as PDF (or SVG); returns the PNG's path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")
    figure.savefig(path.with_suffix(f".{vector}"), bbox_inches="tight")
    plt.close(figure)
    return path.with_suffix(".png")
