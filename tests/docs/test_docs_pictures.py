"""The committed pictures of docs/concepts.md are what today's code draws."""

import json
from hashlib import sha256

import matplotlib.pyplot as plt
import pytest

from docs.site.concept_pictures import FOLDER, PICTURES, RECORD, what_is_drawn
from recast_analysis.drawing.style import apply_style

REDRAW = "python -m docs.site.concept_pictures draws them again"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.__name__)
def test_a_picture_is_todays(picture) -> None:
    apply_style()
    drawn = picture()
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[drawn.name]
    what = what_is_drawn(drawn.figure)
    plt.close(drawn.figure)
    assert what == recorded["drawn"], REDRAW
    assert sha256((FOLDER / f"{drawn.name}.png").read_bytes()).hexdigest()[:16] == recorded["file"], REDRAW


def test_the_hash_sees_what_a_reader_would() -> None:
    figures = [plt.subplots()[0] for _ in range(3)]
    for figure, height in zip(figures, (1.0, 1.0, 1.1), strict=True):
        figure.axes[0].bar([0], [height])
    same, again, other = (what_is_drawn(figure) for figure in figures)
    plt.close("all")
    assert same == again != other


def test_the_page_shows_every_picture() -> None:
    text = (FOLDER.parent / "concepts.md").read_text(encoding="utf-8")
    assert [path.name for path in FOLDER.glob("*.png") if f"(concepts/{path.name})" not in text] == []
