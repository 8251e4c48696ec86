"""Figures from run folders: which there are, what their lines hold, how they are written."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_analysis.drawing.panels import same_curves, stacked
from recast_analysis.drawing.style import INK, Drawn, as_svg, save_figure
from recast_analysis.figures import run_figures
from recast_analysis.measures.actor_cost import Corners, read_corners
from recast_analysis.measures.trajectories import Trajectory, read_trajectories
from recast_analysis.reports.mechanism import MECHANISMS, mechanism_figure
from recast_analysis.reports.run_kinds import find_report
from recast_sim.runs import RunError

NO_CORNERS = "actor cost in four corners: no run here has prompts of tokens (a simulated prompt is a vector)"
TRAINED = ["regimes", "repair", "gradients", "budget", "pass-at-k"]
REGIMES = next(mechanism for mechanism in MECHANISMS if mechanism.name == "regimes")


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        (
            "train",
            ["figure", *TRAINED],
            [NO_CORNERS],
        ),
        (
            "killed",
            ["figure", *TRAINED],
            [NO_CORNERS],
        ),
        ("real", ["figure", *TRAINED, "corners"], []),
        ("gradients", ["cools-and-learns", "figure"], ["mechanism figures: a run of kind 'gradients' holds no training run"]),
        ("map", ["slices"], ["mechanism figures: a run of kind 'map' holds no training run"]),
    ],
)
def test_a_run_gives_the_figures_it_has_data_for(
    run_folders: dict[str, Path], kind: str, names: list[str], words: list[str]
) -> None:
    drawn, left_out = run_figures(run_folders[kind], find_report(run_folders[kind]))
    plt.close("all")
    assert [one.name for one in drawn] == names
    assert left_out == words
    assert all((one.title and "seed" in one.caption + one.title) or "world" in one.caption for one in drawn)


def test_a_comparison_draws_what_its_evaluations_hold(run_folders: dict[str, Path]) -> None:
    drawn, left_out = run_figures(run_folders["budget"], find_report(run_folders["budget"]))
    plt.close("all")
    assert [one.name for one in drawn] == [
        "figure",
        "learned",
        "regimes",
        "repair",
        "gradients",
    ]  # its own figure holds the budget curves
    assert NO_CORNERS in left_out
    assert "5 seeds; lines are means over seeds, bands their 95 % t intervals" in drawn[2].caption


def test_lines_are_running_means_of_the_logged_columns(run_folders: dict[str, Path]) -> None:
    (run,) = read_trajectories(run_folders["train"])
    drawn = mechanism_figure(REGIMES, [run])
    assert isinstance(drawn, Drawn)
    shares = [100 * value for value in run.steps["before_all_zero"]]
    expected = [sum(shares[i : i + 4]) / 4 for i in range(17)]  # 20 steps, a fifth of them
    (line,) = drawn.figure.axes[0].get_lines()
    assert np.allclose(line.get_ydata(), expected)
    assert np.allclose(line.get_xdata(), np.arange(17) + 2.5)
    plt.close("all")


def test_a_killed_run_is_drawn_to_its_last_whole_step(run_folders: dict[str, Path]) -> None:
    (run,) = read_trajectories(run_folders["killed"])
    assert run.steps["step"].to_list() == list(range(1, 8))
    assert run.evals["step"].to_list() == [0, 5]


def test_methods_without_rollouts_are_drawn_over_those_of_the_others() -> None:
    def run(method: str, spent: list[int], draws: bool) -> Trajectory:
        evals = pl.DataFrame({"step": [0, 10, 20], "rollouts": spent, "pass_at_1_sampled": [0.1, 0.2, 0.3]})
        return Trajectory("", method, 0, pl.DataFrame(), evals, draws)

    budget = next(mechanism for mechanism in MECHANISMS if mechanism.name == "budget")
    drawn = mechanism_figure(budget, [run("sft", [0, 0, 0], False), run("grpo", [0, 4000, 9000], True)])
    assert isinstance(drawn, Drawn)
    line, zero = drawn.figure.axes[0].get_lines()  # the same scores over the same rollouts: one line
    assert line.get_label() == "sft = grpo"
    assert line.get_ydata() == pytest.approx([0, 10, 20])  # points from the start, not levels
    assert list(zero.get_ydata()) == [0, 0]
    assert line.get_xdata() == pytest.approx([0, 4, 9])
    plt.close("all")


def test_a_method_that_a_kill_left_out_of_one_start_is_drawn_in_the_other() -> None:
    def run(setting: str, method: str, share: float) -> Trajectory:
        return Trajectory(setting, method, 0, pl.DataFrame({"step": [1, 2], "repaired": [share, share]}), pl.DataFrame())

    repair = next(mechanism for mechanism in MECHANISMS if mechanism.name == "repair")
    drawn = mechanism_figure(repair, [run("a", "recast", 0.9), run("a", "sft", 1.0), run("b", "sft", 1.0)])
    assert isinstance(drawn, Drawn)
    assert [len(axis.get_lines()) for axis in drawn.figure.axes] == [2, 1]
    plt.close("all")


@given(st.integers(1, 64), st.integers(2, 32), st.integers(1, 600), st.integers(1, 8))
def test_corners_count_what_an_actor_reads(prompts: int, group: int, length: int, fed: int) -> None:
    corners = Corners(prompts, group, length, fed)
    for rows in (2, group):
        repeated = sum(1 for _ in range(prompts) for _ in range(rows)) * (length + fed)
        assert corners.tokens(rows, shared=False) == repeated
        assert corners.tokens(rows, shared=True) == repeated - prompts * (rows - 1) * length


def test_corners_of_a_run_meet_its_own_counts(run_folders: dict[str, Path]) -> None:
    runs = {run.method: run for run in read_trajectories(run_folders["real"])}
    by_grpo, by_recast = read_corners([runs["grpo"]]), read_corners([runs["recast"]])
    assert isinstance(by_grpo, Corners)
    assert by_grpo == by_recast  # the same prompts, whichever method counts them
    assert (by_grpo.prompts, by_grpo.group, by_grpo.fed) == (6, 8, 2)
    for name, rows in (("grpo", 8), ("recast", 2)):
        steps = runs[name].steps
        most, least = by_grpo.tokens(rows, shared=True), by_grpo.prompts * (by_grpo.length + by_grpo.fed)
        assert least <= steps["actor_tokens"][-1] / len(steps) <= most  # prefixes that rows share are counted once
    sft = runs["sft"].steps  # one row a prompt, and no other to share a prefix with
    assert by_grpo.tokens(1, shared=True) == pytest.approx(sft["actor_tokens"][-1] / len(sft))
    assert "no method draws plain rollouts" in str(read_corners([runs["sft"]]))


def test_curves_that_coincide_share_a_name_and_short_runs_cut_the_others() -> None:
    line, other = np.array([1.0, 2.0]), np.array([1.0, 2.5])
    assert same_curves({"a": (line,), "b": (other,), "c": (line + 1e-15,)}) == [["a", "c"], ["b"]]
    frames = [pl.DataFrame({"x": [1.0, 2.0, 3.0]}), pl.DataFrame({"x": [5.0, 6.0]})]
    assert stacked(frames, "x").tolist() == [[1, 2], [5, 6]]
    assert stacked(frames, "x", smooth=2).tolist() == [[1.5], [5.5]]


def test_figures_are_written_as_png_and_pdf_and_their_svg_takes_the_pages_ink(
    run_folders: dict[str, Path], tmp_path: Path
) -> None:
    runs = read_trajectories(run_folders["train"])
    drawn = [mechanism_figure(REGIMES, runs) for _ in range(3)]
    first, second, third = (one for one in drawn if isinstance(one, Drawn))
    path = save_figure(first, tmp_path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    svg = as_svg(second, "a")
    assert svg == as_svg(third, "a")  # the same run, the same bytes
    assert INK not in svg
    assert "currentColor" in svg
    assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "").replace(
        'xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )


def test_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        run_figures(tmp_path, find_report(tmp_path))
