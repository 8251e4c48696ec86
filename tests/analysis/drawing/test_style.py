"""What a saved figure does to the texts in it: line ends of ours stay, what a name brings is spelled out."""

from pathlib import Path

import matplotlib.pyplot as plt

from recast_analysis.drawing.style import Drawn, save_figure


def test_names_at_ticks_keep_their_line_ends_and_lose_what_is_hidden(tmp_path: Path) -> None:
    figure, axes = plt.subplots()
    axes.barh(["two rows,\nprompt shared", "a\x1b[31mb"], [1, 2])
    save_figure(Drawn("f", "t", figure, "c"), tmp_path)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["two rows,\nprompt shared", r"a\x1b[31mb"]
