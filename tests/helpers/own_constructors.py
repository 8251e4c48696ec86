"""A user's file with one constructor of their own, and what tests say of it."""

from pathlib import Path

NAME = "mine_of_tests"
TEXT = f'''"""Two of the shipped steps, composed anew."""

from recast_sim.signal import boundary_contrast, keep_nonzero, register, repair_all_zero


@register("{NAME}", source="these tests", anchors="all_zero", structural=True, all_zero="repaired", width="2")
def mine(state):
    return keep_nonzero(boundary_contrast(repair_all_zero(state)))
'''


def write_own(folder: Path, text: str = TEXT, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file
