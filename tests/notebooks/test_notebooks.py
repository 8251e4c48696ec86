"""The notebooks run alone from top to bottom, show what is committed, hold no computation of their own, and stay small."""

import ast
import importlib.util
import re
import resource
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from notebooks.execute import NOTEBOOKS, execute, normalised

MEASURED = "measured"  # tag of a cell whose numbers come from training or a clock
_LINES = 16  # of a code cell
_KILOBYTES, _ALL_KILOBYTES = 150, 800
_CPU_SECONDS = 160  # 80 of an idle core; where cores are shared the same work counts up to twice as many
_COMPUTES = (ast.For, ast.While, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.Try, ast.Match)
_OF_A_MACHINE = re.compile(r"/(?:tmp|home|root|work|Users)/|[A-Z]:\\\\")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def computation(source: str) -> list[str]:
    """What a cell does beyond loading, calling and plotting."""
    found = [type(node).__name__ for node in ast.walk(ast.parse(source)) if isinstance(node, _COMPUTES)]
    lines = [line for line in source.splitlines() if line.strip()]
    statements = [node for node in ast.parse(source).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return found + ["too long"] * (bool(statements) and len(lines) > _LINES)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[tuple[str, ...]]:
    return [(output.output_type, *sorted(output.get("data", {}))) for output in cell.get("outputs", [])]


def texts(cell: NotebookNode) -> list[str]:
    """What a cell shows, pictures left out."""
    data = [output.get("data", {"text/stream": output.get("text", "")}) for output in cell.outputs]
    return [value for each in data for name, value in sorted(each.items()) if name.startswith("text/")]


def test_there_are_notebooks_and_their_numbers_run_on() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}-" for number in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) >= 5


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import numpy as np\nx = [np.sin(v) for v in range(3)]\nprint(x)", []),
        ("for v in range(3):\n    print(v)", ["For"]),
        ("def f():\n    return 1", ["FunctionDef"]),
        ("f = lambda v: v + 1", ["Lambda"]),
        ("with open('x') as file:\n    while True:\n        pass", ["While"]),
        ("print(1)\n" * 17, ["too long"]),
        ("from os import (\n" + "    path,\n" * 20 + ")", []),
    ],
)
def test_the_rule_tells_calls_from_computation(source: str, found: list[str]) -> None:
    assert computation(source) == found


@each_notebook
def test_cells_only_load_call_and_plot(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))[1:]  # the first installs
    assert cells
    assert {cell.id: computation(cell.source) for cell in cells if computation(cell.source)} == {}


@each_notebook
def test_words_stand_before_and_after_each_figure(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    roles = ["figure" if "image/png" in str(kinds(cell)) else cell.cell_type for cell in cells]
    assert "figure" in roles
    assert roles[0] == roles[-1] == "markdown"
    words_or_figures = [role for role in roles if role != "code"]  # a table of the same numbers may stand between them
    assert "figure figure" not in " ".join(words_or_figures)
    assert all(roles[place - 1] == "markdown" for place, role in enumerate(roles) if role == "figure")


@each_notebook
def test_committed_outputs_are_whole_small_and_of_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text, cells = path.read_text(encoding="utf-8"), code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name", "") for cell in cells for output in cell.outputs} <= {"", "stdout"}
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert _OF_A_MACHINE.findall(text) == []
    assert len(text) < 1000 * _KILOBYTES
    assert nbformat.writes(normalised(notebook)) == nbformat.writes(nbformat.read(path, as_version=4))


def test_all_together_are_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1000 * _ALL_KILOBYTES


class Shell:
    """What a first cell asks of IPython, written down instead of done."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def run_line_magic(self, name: str, line: str) -> None:
        self.asked.append((name, line))


@pytest.mark.parametrize("found", [None, "recast"])
def test_the_first_cell_installs_recast_where_it_is_missing(found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = {code_cells(nbformat.read(path, as_version=4))[0].source for path in NOTEBOOKS}  # one cell in all of them
    shell, seen = Shell(), list[str]()

    def find_spec(name: str) -> Any:
        seen.append(name)
        return found

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    assert seen == ["recast_sim"]
    assert shell.asked == ([] if found else [("pip", 'install --quiet "recast-rl[train]"')])
    project = tomllib.loads((NOTEBOOKS[0].parents[1] / "pyproject.toml").read_text())["project"]
    assert (project["name"], set(re.findall(r"\[([a-z,]+)\]", source))) == ("recast-rl", {"train,notebooks", "train"})
    assert {"train", "notebooks"} <= set(project["optional-dependencies"])


@pytest.mark.slow
@each_notebook
def test_a_run_in_a_folder_of_its_own_shows_what_is_committed(path: Path, tmp_path: Path) -> None:
    begun, alone = _children(), tmp_path / "alone"
    alone.mkdir()
    copy = Path(shutil.copy(path, alone))
    fresh = code_cells(execute(copy, alone, {"RECAST_CACHE": str(tmp_path / "empty")}))  # 05 then takes the made-up log
    assert _children() - begun < _CPU_SECONDS
    for cell, committed in zip(fresh, code_cells(nbformat.read(path, as_version=4)), strict=True):
        assert kinds(cell) == kinds(committed), cell.source
        assert all(texts(cell)), cell.source
        if MEASURED not in cell.metadata.get("tags", []):
            assert texts(cell) == texts(committed), cell.source


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
