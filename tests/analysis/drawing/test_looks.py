"""A method looks the same wherever it is drawn, and unlike its neighbours."""

import itertools

import numpy as np
from matplotlib.colors import to_rgb

from recast_analysis.drawing.looks import look
from recast_analysis.drawing.style import colours

BESIDE = ("grpo", "dr_grpo", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative", "base")
BESIDE += ("hits_light_anchor", "mixture_anchor", "beam_listwise")
WHITE = np.array([0.9505, 1.0, 1.089])
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour (D65)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = (np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in TO_XYZ @ linear / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_methods_that_are_drawn_side_by_side_are_told_apart() -> None:
    distances = {
        pair: float(np.linalg.norm(lab(look(pair[0]).colour) - lab(look(pair[1]).colour)))
        for pair in itertools.combinations(BESIDE, 2)
    }
    assert min(distances.values()) > 15, min(distances, key=lambda pair: distances[pair])


def test_a_look_depends_on_the_name_alone() -> None:
    assert colours(["x", "grpo", "recast"])["grpo"] == colours(["grpo"])["grpo"] == look("grpo").colour
    assert [look(name) for name in ("one", "other")] == [look(name) for name in ("one", "other")]
    assert look("recast w_minus=0.3").colour == look("recast").colour
    assert look("recast w_minus=0.3").dash != look("recast").dash
    assert look("recast w_minus=0.3") != look("recast w_minus=1.5")
