"""The tutorial on one's own constructor: its file as printed, every command of it, in small."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recast_sim.signal import construct, get_constructor, unregister

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-constructor.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
FILE = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "@register" in block)
WORLD = {"items": "60", "sizes": "4 4 4", "train-prompts": "128", "heldout-prompts": "64"}
PREFIX = {"check": "environment", "gradients": "environment", "budget": "setting.environment"}
SMALLER = {  # what makes each command small
    "check": "--group-size 8 --regime 0.7 0.25 0.05",
    "gradients": "--no-calibrate --prompts 64",
    "budget": "--protocol.seeds 2 --protocol.learning-rates 0.1 --setting.training.steps 4 --setting.regime",
    "run": "--sft.steps 4 --rl.steps 2 --data.format sequences --data.path log.txt --data.core 1",
}
MODULES = {"recast-sim": "recast_sim.cli", "recast-train": "recast_train.cli"}


def smaller(command: str) -> list[str]:
    program, *words = shlex.split(command)
    if words[0] in PREFIX:
        words += [word for key, value in WORLD.items() for word in (f"--{PREFIX[words[0]]}.{key}", *value.split())]
    own = [re.sub(r"^recast_(sim|train)/", rf"{ROOT}/recast_\1/", word) for word in (*words, *SMALLER[words[0]].split())]
    return [sys.executable, "-c", f"from {MODULES[program]} import main; main()", *own]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_runs(command: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    walks = (" ".join(f"i{(7 * user + step) % 30}" for step in range(12)) for user in range(40))
    (tmp_path / "log.txt").write_text("".join(f"u{user} {walk}\n" for user, walk in enumerate(walks)))
    done = subprocess.run(smaller(command), capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout


def test_the_page_has_every_door() -> None:
    assert [shlex.split(command)[1] for command in COMMANDS] == ["check", "gradients", "budget", "run"]
    assert all(word in PAGE for word in ('constructor="mine.py:mine"', "VERL_USE_EXTERNAL_MODULES", "recast.constructors"))


def test_a_file_in_front_of_a_name_is_a_constructor_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "mine_of_the_page.py"
    file.write_text(FILE.replace('"mine"', '"mine_of_the_page"'))
    rewards, sids = torch.tensor([[0.0, 0.0]]), torch.tensor([[[1, 2, 4], [5, 2, 3]]])
    scores, targets = torch.tensor([[0.1, 0.0]]), torch.tensor([[[1, 2, 3]]])
    signal = construct(
        f"{file}:mine_of_the_page", rewards, scores, has_anchor_P=torch.tensor([True]), sids_PGL=sids, targets_PTL=targets
    )
    assert (
        signal.plan.advantages_NL.tolist()
        == construct(
            "recast_masked", rewards, scores, has_anchor_P=torch.tensor([True]), sids_PGL=sids, targets_PTL=targets
        ).plan.advantages_NL.tolist()
    )
    assert get_constructor("mine_of_the_page").source == "my paper"
    unregister("mine_of_the_page")
