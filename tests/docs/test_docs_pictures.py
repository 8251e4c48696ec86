"""The committed pictures of docs/concepts.md are what today's code draws."""

import matplotlib.pyplot as plt
import pytest

from docs.site.concept_pictures import FOLDER, PICTURES
from recast_analysis.drawing.fingerprint import fingerprint, recorded
from recast_analysis.drawing.style import apply_style


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.__name__)
def test_a_picture_is_todays(picture) -> None:
    apply_style()
    drawn = picture()
    what = fingerprint(drawn.figure)
    plt.close(drawn.figure)
    assert what == recorded(FOLDER / f"{drawn.name}.png"), "python -m docs.site.concept_pictures draws them again"


def test_the_page_shows_every_picture() -> None:
    text = (FOLDER.parent / "concepts.md").read_text(encoding="utf-8")
    assert [path.name for path in FOLDER.glob("*.png") if f"(concepts/{path.name})" not in text] == []
