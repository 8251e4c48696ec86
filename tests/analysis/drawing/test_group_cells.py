"""Pictures of groups hold the numbers that they were given, and leave out the rows that the actor never sees."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.patches import Rectangle

from recast_analysis.drawing.group_cells import RowPanel, rows_figure
from recast_sim.signal import construct

REWARDS = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SCORES = torch.tensor([[0.1, 0.0, 0.01], [0.1, 1.0, 0.0]])


def test_a_cell_a_kept_row_and_a_frame_round_each_anchor() -> None:
    signal = construct("recast", REWARDS, SCORES, has_anchor_P=torch.tensor([True, True]))
    panels = [
        RowPanel("scores", SCORES),
        RowPanel("recast", signal.advantages_PG, signal.active_PG, signal.anchor_slot_P),
    ]
    figure = rows_figure(panels, ["no hit", "one hit"])
    scores, recast = figure.axes
    assert [text.get_text() for text in scores.texts] == ["0.1", "0", "0.01", "0.1", "1", "0"]
    assert {(text.get_position(), text.get_text()) for text in recast.texts} == {
        ((0, 0), "-1"),
        ((1, 0), "1"),
        ((0, 1), "-1"),
        ((1, 1), "1"),
    }
    assert [patch.get_xy() for patch in recast.patches if isinstance(patch, Rectangle)] == [(1 - 0.46, -0.46)]
    assert not scores.patches
    assert [label.get_text() for label in scores.get_yticklabels()] == ["no hit", "one hit"]
    plt.close(figure)


def test_panels_fill_lines_and_what_is_left_is_empty() -> None:
    figure = rows_figure([RowPanel(str(n), REWARDS) for n in range(4)], ["a", "b"], columns=3)
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2
    plt.close(figure)


@pytest.mark.parametrize("values", [REWARDS[0], REWARDS[:1], torch.zeros(2, 3, 1)])
def test_values_of_another_shape_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"values_PG: shape .* of panel 'rewards' must be \(2, rollouts\)"):
        rows_figure([RowPanel("rewards", values)], ["a", "b"])


def test_a_figure_needs_a_panel() -> None:
    with pytest.raises(ValueError, match="panels: none given"):
        rows_figure([], ["a"])
