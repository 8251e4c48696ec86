"""A ten-line project that holds its advantages to the golden vectors in its own tests."""

import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recast_analysis.conform.advantage_formulas import FORMULAS
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.formula import advantages
from recast_analysis.conform.pytest_plugin import hold

PROJECT = """
import numpy as np
def advantages(rewards, ids):
    found, ids = np.zeros(len(ids)), np.array(ids, dtype=object)
    for name in set(ids):
        rows = (ids == name) & ~np.isnan(rewards)
        group = rewards[rows].astype(float)
        if rows.sum() > 1:
            found[rows] = (group - group.mean()) / (group.std(ddof=1) + 1e-6)
    return found
"""
TESTS = """
import mine
def test_advantages(conforms):
    conforms(mine.advantages, "grpo", ddof="1", denominator="std + 1e-6")
def test_another_choice(conforms):
    conforms("mine:advantages", "grpo", ddof="0")
"""
ROOT = Path(__file__).parents[3]
PLUGIN = "recast_analysis.conform.pytest_plugin"


def pytest_in(folder: Path, *arguments: str) -> str:
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    settings = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        *arguments,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **settings})
    return done.stdout + done.stderr


def test_a_project_of_ten_lines(tmp_path: Path) -> None:
    assert len(PROJECT.strip().splitlines()) < 11
    (tmp_path / "mine.py").write_text(PROJECT)
    (tmp_path / "test_mine.py").write_text(TESTS)
    said = pytest_in(tmp_path, "--recast-conform", "mine:advantages")
    assert "1 failed, 2 passed" in said
    assert "AssertionError: mine:advantages as grpo: ddof is '1', expected '0'" in said


def test_choices_are_given_by_their_names(tmp_path: Path) -> None:
    """With _ for what is no letter: "each function's" is each_function_s."""
    said = hold(reference_gdpo, "gdpo", functions=True, each_function_s="std + 1e-6", one_row="0")
    assert said.setting["each function's"] == "std + 1e-6"
    with pytest.raises(ConformError, match=r"eps: no choice of gdpo has that name; choose from ddof, .*each_function_s"):
        hold(reference_gdpo, "gdpo", functions=True, eps="0")


def reference_gdpo(rewards: Any, ids: list[Any]) -> Any:
    table = [[None if math.isnan(one) else float(one) for one in row] for row in rewards.reshape(len(ids), -1)]
    return np.array(advantages(FORMULAS["gdpo"], table, ids, FORMULAS["gdpo"].reference()))


def test_the_option_alone_finds_a_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROJECT.replace("np.array(ids, dtype=object)", "np.array([len(str(i)) for i in ids])"))
    said = pytest_in(tmp_path, "--recast-conform", "mine:advantages")
    assert "1 failed" in said
    assert "smallest: rewards" in said


def test_the_package_registers_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"recast_conform": PLUGIN}
