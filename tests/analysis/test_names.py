"""Names from anywhere, in a table, a figure and a page: shown as they are, spelled out where a terminal would obey, cut where
endless; one bad run takes nothing else down."""

import io
import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from commands import called
from rich.console import Console

from recast_analysis.cli import main
from recast_analysis.drawing.style import Drawn, PlainPowers, apply_style, as_svg, plain_powers, save_figure
from recast_analysis.page import make_page
from recast_analysis.reports.report import Report, Table
from recast_analysis.terminal import print_report
from recast_sim.printable import printable
from recast_sim.runs import RunError, RunWriter

NAMES = (
    *(r"$\frac$", "$", "[bold]x[/bold]", "\x1b[31mred", "\x00\x07", "\u202eback", "\ud800"),
    *("y" * 5000, "a\nb" * 2000, "<b>&", "^_{"),
)


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert printable("a\x1b[31mb\x00\u202e\ud800\n") == r"a\x1b[31mb\x00\u202e\ud800\n"
    assert printable("a\nb\x07", lines=True) == "a\nb\\x07"
    assert printable("größe ½, 試験") == "größe ½, 試験"
    assert printable("x" * 5000, 40) == f"{'x' * 30} ... {'x' * 10}"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_in_a_table_and_a_figure(name: str, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=600)
    print_report(Report({}, [Table(name, (name, "value"), [(name, name)], note=name), name]), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert len(shown) < 30_000
    if name.isascii() and name.isprintable() and len(name) < 100:
        assert name in shown
    apply_style()
    figure, axis = plt.subplots()
    axis.plot([1, 2], [1e-3, 1e3], label=printable(name))
    axis.set(yscale="log", xlabel=printable(name), title=printable(name), xticks=[1, 2], xticklabels=[printable(name)] * 2)
    axis.legend()
    svg = as_svg(Drawn("a", name, figure, name), "p")
    assert len(svg) < 3_000_000
    plt.close("all")


def test_long_names_and_dollars_do_not_break_a_figure(tmp_path: Path) -> None:
    apply_style()
    figure, axis = plt.subplots()
    axis.barh(["z" * 5000, r"$\frac$"], [1, 2])
    axis.set_title("t" * 5000)
    file = save_figure(Drawn("a", "t", figure, "c" * 9000), tmp_path)
    assert file.stat().st_size < 5_000_000


def test_powers_are_plain_letters() -> None:
    apply_style()
    figure, axis = plt.subplots()
    axis.plot([1, 2], [1e-4, 1e4])
    axis.set_yscale("log")
    plain_powers(axis.yaxis)
    figure.canvas.draw()
    words = {label.get_text() for label in axis.get_yticklabels()}
    assert {"10⁻³", "10³"} <= words or {"10⁻⁴", "10⁴"} <= words
    assert not any("$" in word for word in words)
    assert isinstance(axis.yaxis.get_major_formatter(), PlainPowers)
    plt.close("all")


def run_of(path: Path, constructor: str) -> Path:
    writer = RunWriter.create(path, "simulation", {"training": {"constructor": constructor}}, 0)
    writer.step({"step": 1, "loss": 0.5})
    writer.close()
    return path


def test_one_bad_run_takes_neither_page_nor_table_down(tmp_path: Path) -> None:
    for place, name in enumerate(NAMES):
        run_of(tmp_path / "runs" / str(place), name)
    bad = tmp_path / "runs" / "bad"
    shutil.copytree(tmp_path / "runs" / "0", bad)
    (bad / "manifest.json").write_bytes(b"\xff")
    runs = sorted((tmp_path / "runs").iterdir())
    page = make_page(runs)
    assert page.count("<section") >= len(runs)
    assert "not readable: " in page
    assert not any(mark in page for mark in ("\x1b", "\x00", "\u202e", "<b>&"))
    shown = called(main, "show", tmp_path / "runs")
    assert shown.returncode == 0
    assert "not readable: " in shown.stdout
    assert "\x1b" not in shown.stdout
    assert len(json.loads(called(main, "show", tmp_path / "runs", "--json").stdout)) == len(NAMES)
    with pytest.raises(RunError, match="not UTF-8 text"):
        make_page([bad])
    assert called(main, "show", bad).returncode == 2
