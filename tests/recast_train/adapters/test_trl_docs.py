"""The example of docs/trl.md runs as printed and learns."""

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore::FutureWarning")]  # transformers on its own options

PAGE = (Path(__file__).parents[3] / "docs" / "trl.md").read_text(encoding="utf-8")


def test_the_example_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(block, names)
    rewards = [row["reward"] for row in names["trainer"].state.log_history if "reward" in row]
    assert len(rewards) == 4
    assert rewards[-1] > rewards[0] + 0.3
    assert str([round(reward, 2) for reward in rewards]) in capsys.readouterr().out
