"""A hash of what a figure shows, kept in its PNG, so that a picture can be held against today's code and data."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

_KEY = "recast figure"
_DIGITS = 5  # of a number: sums differ in the last ones from machine to machine


def fingerprint(figure: Figure) -> str:
    """SHA-256 over the points, bars, cells and words of all panels, numbers to five digits."""
    words = [f"{name} {value}" for axes in figure.axes for name, value in _shown(axes)]
    return sha256("\n".join(words).encode()).hexdigest()


def metadata(figure: Figure) -> dict[str, str]:
    """What `savefig` is to write into a PNG beside the picture."""
    return {_KEY: fingerprint(figure)}


def recorded(png: Path) -> str | None:
    """The fingerprint in a PNG of ours, None where it holds none."""
    with Image.open(png) as image:
        return image.info.get(_KEY)


def _shown(axes: Axes) -> Iterator[tuple[str, str]]:
    yield "title", " ".join(axes.get_title(loc) for loc in ("left", "center", "right"))
    yield "axes", f"{axes.get_xlabel()} {axes.get_xscale()} {axes.get_ylabel()} {axes.get_yscale()}"
    yield "words", " ".join(text.get_text() for text in axes.texts)
    for child in axes.get_children():
        if isinstance(child, Line2D):
            yield f"line {child.get_label()} {child.get_color()}", _numbers(child.get_xydata())
        elif isinstance(child, Collection):
            yield "collection", "; ".join(_numbers(path.vertices) for path in child.get_paths()) + _numbers(child.get_offsets())
        elif isinstance(child, Rectangle) and child is not axes.patch:
            yield "bar", _numbers([*child.get_xy(), child.get_width(), child.get_height()])
        elif isinstance(child, AxesImage):
            yield "image", _numbers(child.get_array())


def _numbers(values: Any) -> str:
    flat = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan).reshape(-1)
    return " ".join(f"{value:.{_DIGITS}g}" for value in flat + 0.0)  # no minus before a zero
