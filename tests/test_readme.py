"""The README's code runs as printed, and its figures stand in the repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)
    assert names["signal"].plan.rows_N.tolist() == [0, 1, 3, 4]
    assert "tensor([ 1, -1])" in capsys.readouterr().out


@pytest.mark.parametrize("file", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda file: file.name)
def test_pictures_and_links_exist(file: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text(encoding="utf-8"))
    assert [target for target in targets if not target.startswith("http") and not (file.parent / target).exists()] == []


def test_it_is_read_in_a_minute() -> None:
    assert len(README.splitlines()) <= 75
