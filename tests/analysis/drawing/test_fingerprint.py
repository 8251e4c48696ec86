"""A picture tells what it shows: its PNG holds a hash of points, bars and words, and the committed one is today's."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from commands import called
from matplotlib.figure import Figure

from recast_analysis.cli import main as reports
from recast_analysis.drawing.fingerprint import fingerprint, recorded
from recast_analysis.drawing.style import Drawn, save_figure
from recast_sim.cli import main as simulator

DOCS = Path(__file__).parents[3] / "docs"


def figure(value: float = 2.0, label: str = "grpo", title: str = "a", size: float = 4) -> Figure:
    made, axes = plt.subplots(1, 2, figsize=(size, 3))
    axes[0].plot([0, 1], [1.0, value], label=label)
    axes[0].fill_between([0, 1], [0.5, 1], [1.5, value])
    axes[1].barh(["x", "y"], [1, value])
    axes[1].set_title(title)
    plt.close(made)
    return made


def test_what_is_shown_changes_it_and_how_large_it_is_drawn_does_not() -> None:
    same = fingerprint(figure())
    assert fingerprint(figure(value=2.0 + 1e-9, size=7)) == same
    others = [fingerprint(figure(value=2.01)), fingerprint(figure(label="recast")), fingerprint(figure(title="b"))]
    assert len({same, *others}) == 4


def test_a_saved_picture_holds_it(tmp_path: Path) -> None:
    wanted = fingerprint(figure())
    assert recorded(save_figure(Drawn("figure", "", figure(), "words"), tmp_path)) == wanted


FIXTURE = "tests/analysis/audit/fixtures/verl-0.9.1"
THEORY = "recast-sim theory --hit-rate 0.0054 --group 32"
COMMITTED = [
    pytest.param(
        simulator, "recast-sim theory --hit-rate 0.0054 --group 32", "laboratory.md", "theory.png", "figure.png", id="theory"
    ),
    pytest.param(reports, f"recast-report audit {FIXTURE}", "audit.md", "audit.png", "figure.png", id="audit"),
    pytest.param(reports, f"recast-report plan {FIXTURE} --scatter 0.03", "plan.md", "plan.png", "plan.png", id="plan"),
]


@pytest.mark.parametrize(("main", "command", "page", "committed", "drawn"), COMMITTED)
def test_a_committed_picture_is_what_the_command_of_its_page_draws(
    main: Callable[[], None],
    command: str,
    page: str,
    committed: str,
    drawn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command in (DOCS / page).read_text(encoding="utf-8")
    monkeypatch.chdir(DOCS.parent)
    assert not called(main, *command.split()[1:], "--out", tmp_path / "run").returncode
    assert recorded(DOCS / committed) == recorded(tmp_path / "run" / drawn) is not None
