"""What all commands have in common: help for every option, lines that fit the terminal, recipes by name, a quick overview."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import called

from recast_analysis.reports.report import Report, Table
from recast_analysis.terminal import finish, print_markdown, print_report, terminal
from recast_sim.cli import COMMANDS
from recast_sim.cli import main as simulator
from recast_sim.cli.shared import RECIPES as SIMULATED
from recast_sim.commandline import Command, Printing
from recast_sim.commandline.recipe_files import recipe_heads
from recast_train.cli import main as trainer
from recast_train.cli.shared import RECIPES as REAL

PACKAGES = {"recast-sim": "recast_sim.cli", "recast-train": "recast_train.cli", "recast-report": "recast_analysis.cli"}
ALL = [
    pytest.param(prog, name, command, id=f"{prog} {name}")
    for prog, module in PACKAGES.items()
    for name, command in importlib.import_module(module).COMMANDS.items()
]
RECIPES = [(folder, name) for folder in (SIMULATED, REAL) for name in recipe_heads(folder)]


@pytest.mark.parametrize(("prog", "name", "command"), ALL)
def test_help_fits_the_terminal_and_leaves_no_option_out(
    prog: str, name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = called(importlib.import_module(PACKAGES[prog]).main, name, "--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    entries = re.split(r"\n  (?=-)", done.stdout)[1:]
    assert {"-h,", "--json", "--wide", "--plugin"} <= {entry.split()[0] for entry in entries}
    untold = [entry.split()[0] for entry in entries if not re.search(r"\w  +\S|[}\]]  +\S|\n +\S", entry.split("(default")[0])]
    assert untold == []
    assert len(command.about()) <= 85


@pytest.mark.parametrize(
    "line",
    [
        "recast-sim constructors",
        "recast-sim plan",
        "recast-train data",
        "recast-train sizes",
        "recast-report tables",
        "recast-report agree",
    ],
)
def test_a_command_that_writes_nothing_has_no_out(line: str, tmp_path: Path) -> None:
    prog, name = line.split()
    done = called(importlib.import_module(PACKAGES[prog]).main, name, "--out", tmp_path)
    assert done.returncode == 2
    assert "--out: unknown" in done.stderr


@pytest.mark.parametrize("prog", PACKAGES)
def test_the_overview_loads_no_torch_and_fits(prog: str) -> None:
    code = (
        f"from {PACKAGES[prog]} import main\ntry:\n    main()\nfinally:\n    import sys; print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert not {"torch", "polars", "scipy", "matplotlib"} & set(done.stderr.split())
    assert done.stdout.startswith(f"usage: {prog} COMMAND")
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("prog", PACKAGES)
def test_the_version_is_the_distributions(prog: str) -> None:
    done = called(importlib.import_module(PACKAGES[prog]).main, "--version")
    assert re.fullmatch(rf"{prog} \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(("folder", "name"), RECIPES, ids=[name for _, name in RECIPES])
def test_a_recipes_own_command_takes_it(folder: Path, name: str) -> None:
    program, command, *rest = shlex.split(recipe_heads(folder)[name].command)
    assert program == {SIMULATED: "recast-sim", REAL: "recast-train"}[folder]
    assert name in (rest[0] if rest else command)
    assert called(simulator if folder == SIMULATED else trainer, command, name, "--help").returncode == 0


def test_recipes_are_listed_copied_and_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(json.loads(called(trainer, "recipes", "--json").stdout)) == sorted(file.stem for file in REAL.glob("*.toml"))
    assert called(simulator, "recipes", "--copy", "map-quick").stdout == "map-quick.toml\n"
    assert Path("map-quick.toml").read_text() == (SIMULATED / "map-quick.toml").read_text()
    following = called(trainer, "recipes").stdout.splitlines()[-1].removeprefix("next: recast-train ").split()
    assert called(trainer, *following).stdout == "mine.toml\n"
    again = called(simulator, "recipes", "--copy", "map-quick")
    assert again.returncode == 2
    assert "map-quick.toml is there already" in again.stderr
    unknown = called(simulator, "budget", "budget-slow")
    assert unknown.returncode == 2
    assert "budget-slow is neither a file here nor a recipe; recipes are budget, budget-quick, claims" in unknown.stderr
    assert "--copy: 'x' is" not in called(simulator, "recipes", "--copy", "x").stderr
    assert set(COMMANDS) > {"recipes"}


@pytest.mark.parametrize("columns", [60, 80, 100, 240])
def test_a_table_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"score {number}" for number in range(14)]
    rows = [
        [f"method {row}", "in a few words, as a summary has them", *(f"{row + n / 7:.4f}" for n in range(14))]
        for row in range(3)
    ]
    table = Table("A title", ["", "what it is", *names], rows, words=["", "what it is"], note="A note of some length. " * 9)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_report(Report({}, [table, "A line of some length. " * 9]))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    text = " ".join(" ".join(lines).split())
    assert all(text.count(cell) >= 1 for row in rows for cell in row[2:])
    assert all(line.count("method 1") <= 1 for line in lines)
    print_report(Report({}, [table]), terminal(wide=True))
    whole = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| method") for line in whole) == 3


def test_the_pieces_of_a_table_all_name_their_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    header = ["model", "cards", *(f"seconds {n}" for n in range(9))]
    rows = [[model, cards, *(f"{n}.125 to {n}.25" for n in range(9))] for model in ("0.6b", "8b") for cards in ("8", "64")]
    monkeypatch.setenv("COLUMNS", "90")
    print_report(Report({}, [Table("", header, rows)]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 0.6b", "| 8b"))]
    assert len(lines) == 3 * len(rows)
    assert len({line.count("|") for line in lines}) == 1  # as even as they can be: nine columns in three pieces
    assert {tuple(line.split("|")[k].strip() for k in (1, 2)) for line in lines} == {tuple(row[:2]) for row in rows}


def test_a_table_breaks_no_word_that_has_room_and_a_title_stands_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about, path = "what it is in a dozen words that have to be wrapped " * 4, "docs/learning-results.md"
    row = ["learning", about.strip(), "recast-sim budget learning", "17 minutes", path]
    table = Table("A title", ["", "what", "command", "time", "result"], [row], words=["", "what", "command", "time", "result"])
    monkeypatch.setenv("COLUMNS", "100")
    print_report(Report({}, ["Words above.", table]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Words above.", "", "A title"]
    assert sum(path in line for line in lines) == 1
    cells = [line for line in lines if line.startswith("| ")]
    assert len(cells) <= 1 + -(-len(about) // 24)  # the column of many words is the widest


def test_a_page_of_markdown_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = "A paragraph whose lines\nbelong together, " + "and go on " * 12
    page = (
        f"# Title\n\n{words.strip()}\n\n| claim | paper |\n|---|---|\n| 1. {'long ' * 20}| with \\| a bar |\n\n- one\n- two\n"
    )
    monkeypatch.delenv("COLUMNS", raising=False)
    print_markdown(page)
    assert capsys.readouterr().out == page
    monkeypatch.setenv("COLUMNS", "60")
    print_markdown(page)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 60
    assert any(line.startswith("A paragraph whose lines belong together") for line in lines)
    assert {"# Title", "- one", "- two"} <= set(lines)
    assert "with \\| a bar" in " ".join(lines)


@pytest.mark.parametrize("columns", [40, 100])
def test_a_next_command_that_is_wider_than_the_terminal_can_be_copied(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "recast-sim budget --protocol.methods grpo 'recast w_minus=0.3' \"light: recast w_minus=0.1\" --out runs/a/folder"
    monkeypatch.setenv("COLUMNS", str(columns))
    finish(Printing(), {}, Report({}, []), command)
    shown = capsys.readouterr().out.removeprefix("next: ")
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.count("\\\n") > 0
    said = subprocess.run(["bash", "-c", f"printf '%s|' {shown}"], capture_output=True, text=True, check=True)
    assert said.stdout.split("|")[:-1] == shlex.split(command)


def test_an_error_breaks_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = called(simulator, "check", "mien").stderr
    assert whole.count("\n") == 1
    monkeypatch.setenv("COLUMNS", "100")
    lines = called(simulator, "check", "mien").stderr.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 100
    assert " ".join(" ".join(lines).split()) == whole.strip()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Command) -> None:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn.cluster")

    monkeypatch.setattr(Command, "load", load)
    assert called(trainer, "run").stderr == (
        "recast-train: error: sklearn is not installed, which this command needs; pip install 'recast-rl[train]'\n"
    )


@pytest.mark.parametrize("prog", PACKAGES)
def test_a_shell_completes_commands_and_options(prog: str, tmp_path: Path) -> None:
    package = importlib.import_module(PACKAGES[prog])
    done = called(package.main, "--completion", "bash")
    assert not done.returncode, done.stderr
    (tmp_path / "script").write_text(done.stdout)
    asked = f"COMP_WORDS=({prog} {next(iter(package.COMMANDS))} --wid); COMP_CWORD=2; _shtab_{prog.replace('-', '_')}"
    code = f"source ./script; {asked}; echo ${{COMPREPLY[@]}}"
    shown = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == "--wide\n"
    assert "choose from bash" in called(package.main, "--completion", "cmd").stderr
