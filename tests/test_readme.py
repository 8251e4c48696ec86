"""The README's code runs as printed, and its figures stand in the repository."""

import re
from pathlib import Path

import pytest

from recast_sim.signal import unregister

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    unregister("mine")
    unregister("mine_by_level")
    assert names["signal"].plan.rows_N.tolist() == [0, 1, 3, 4]
    assert "tensor([ 1, -1])" in capsys.readouterr().out


def test_pictures_and_links_exist() -> None:
    local = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []
