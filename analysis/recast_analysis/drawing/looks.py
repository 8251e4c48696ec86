"""How a method looks: one colour, marker and dash, by its name alone, so that it is the same in every figure."""

from dataclasses import dataclass
from hashlib import blake2b

# what is often drawn side by side: seaborn's colour-blind colours, told apart by hue and lightness
_OWN = {
    "grpo": "#0173b2",
    "repair_only": "#de8f05",
    "boundary_only": "#029e73",
    "recast": "#d55e00",
    "sft": "#cc78bc",
    "sft_hard_negative": "#ca9161",
    "base": "#949494",
    "start": "#949494",
    "dr_grpo": "#56b4e9",
    "hits_light_anchor": "#117733",
    "mixture_anchor": "#882255",
    "beam_listwise": "#332288",
    "tempered_anchor": "#aa4499",
    "recast_masked": "#999933",
    "composite": "#222255",
    "item_knn": "#777777",
    "item_knn_recency": "#666666",
    "popularity": "#bbbbbb",
    "sequential": "#555555",
    "sasrec": "#884400",
}
# the bright and vibrant schemes of Paul Tol: legible on a white and on a black ground
_OTHERS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#009988", "#cc3311", "#bb5566")
_DASHES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
Dash = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Look:
    """Of a line: `colour` as hex digits, `marker` and `dash` as matplotlib takes them."""

    colour: str
    marker: str
    dash: Dash


def look(name: str) -> Look:
    """The look of a method's line ("recast w_minus=0.3"): the colour is its constructor's, options change marker and dash."""
    constructor, _, options = name.partition(" ")
    colour = _OWN.get(constructor) or _OTHERS[_number(constructor) % len(_OTHERS)]
    number = _number(name)
    solid = constructor in _OWN and not options
    return Look(colour, _MARKERS[number % len(_MARKERS)], "-" if solid else _DASHES[number // len(_MARKERS) % len(_DASHES)])


def _number(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest())
