"""One report, three readers: the terminal, the page and the figures take the same object."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from rich.console import Console

from recast_analysis.drawing.style import Drawn
from recast_analysis.figures import run_figures
from recast_analysis.page import make_page
from recast_analysis.reports.report import Report, Table
from recast_analysis.reports.run_kinds import REPORTS, find_report, run_report
from recast_analysis.terminal import print_report
from recast_sim.runs import RunError, RunWriter

CELLS = ("[bold]a[/bold]", "1.00 [inf, inf]", "per <row>")
PARTS = (
    "before the table [1]",
    Table("what [it] holds", ("name", "value", "unit"), [CELLS, ("b", "2", "")], words=("name", "unit"), note="below it"),
    "after the table",
)


@pytest.fixture
def drawn_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Path]]:
    """A run folder of a kind of its own, and a list that grows whenever its figure is drawn."""
    drawn: list[Path] = []

    def report(root: Path) -> Report:
        def draw() -> list[Drawn]:
            drawn.append(root)
            return [Drawn("one", "Title of the figure", plt.figure(), "Caption of the figure, one seed")]

        return Report({"value": 1.0}, PARTS, draw)

    monkeypatch.setitem(REPORTS, "own", report)
    RunWriter.create(tmp_path / "run", "own", {"training": {}}, 0).close()
    return tmp_path / "run", drawn


def test_terminal_and_page_show_the_parts_in_their_order(drawn_runs: tuple[Path, list[Path]]) -> None:
    root, drawn = drawn_runs
    console = Console(file=io.StringIO(), width=200, record=True)
    print_report(run_report(root), console)
    lines = [line.strip() for line in console.export_text().splitlines() if line.strip()]
    assert lines == [
        "before the table [1]",
        "what [it] holds",
        "| name           |           value | unit      |",
        "|----------------|-----------------|-----------|",
        "| [bold]a[/bold] | 1.00 [inf, inf] | per <row> |",
        "| b              |               2 |           |",
        "below it",
        "after the table",
    ]
    assert drawn == []  # tables alone draw nothing
    page = make_page([root])
    words = ("before the table [1]", "what [it] holds", CELLS[0], CELLS[1], "per &lt;row&gt;", "below it", "after the table")
    places = [page.index(f">{text}<") for text in (*words, "Title of the figure")]
    assert places == sorted(places)
    assert f'<td class="number">{CELLS[1]}</td>' in page
    assert "<td>per &lt;row&gt;</td>" in page
    assert drawn == [root]


def test_figures_are_those_of_the_report(drawn_runs: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, _ = drawn_runs
    figures, _ = run_figures(root, run_report(root))
    assert [one.title for one in figures] == ["Title of the figure"]
    plt.close("all")
    assert run_report(root).save_figures(tmp_path) == [str(tmp_path / "one.png")]
    assert (tmp_path / "one.pdf").exists()


def test_a_run_without_a_report_says_why_on_the_page(tmp_path: Path) -> None:
    RunWriter.create(tmp_path / "run", "unheard-of", {}, 0).close()
    words = "a run of kind 'unheard-of' has no tables; kinds that have: quickstart"
    with pytest.raises(RunError, match=words):
        run_report(tmp_path / "run")
    reason = find_report(tmp_path / "run")
    assert isinstance(reason, str)
    assert words in reason
    assert run_figures(tmp_path / "run", reason)[1][0] == f"the figure of the unheard-of command: {reason}"
    assert "<li>tables: " in make_page([tmp_path / "run"])


def test_tables_know_their_numbers_and_refuse_ragged_rows() -> None:
    assert Table("", ("name", "a", "b"), []).numeric == [False, True, True]
    assert Table("", ("a", "name"), [], words=("name",)).numeric == [True, False]
    with pytest.raises(ValueError, match=r"\['x'\] of 'short' has 1 cells for 2 columns"):
        Table("short", ("a", "b"), [("x",)])
