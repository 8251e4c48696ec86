"""The trainer and the signal module on a device that is not the CPU: the same results, mistakes found, and where a card waits.

The device (`pretend_device`) is a process's for good, so every group of checks runs in a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "helpers" / "device_world.py"
GROUPS = ("trainer", "trl", "signal")
Found = Callable[[str], dict[str, Any]]

# What one step waits for, by the function that does; `python tests/helpers/device_world.py steps` prints the lines.
ROLLOUTS = {
    "recast_train/engine/engine.py Engine.gather": 3,  # leaves, log-probabilities, validity: the signal is made on the CPU
    "recast_train/rollout/sample.py sample_rollouts": 1,  # a model that has diverged stops before anything is made of it
}
UPDATE = {
    "recast_train/engine/engine.py Engine.clip": 1,  # the norm: an update that is not finite is not made
    "recast_train/rl/update.py _backward": 1,  # loss, KL and clip share of all passes, together
}
SUPERVISED = {
    "recast_train/engine/engine.py Engine.clip": 1,
    "recast_train/supervised/train.py _TrainStep.__call__": 1,  # the losses of all passes, together
}
TO_HOST = {
    "recast": ROLLOUTS | UPDATE,
    "grpo": ROLLOUTS | UPDATE,
    "recast, KL, 2 updates": ROLLOUTS | {where: 2 * count for where, count in UPDATE.items()},
    "supervised": SUPERVISED,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """What each group found, in a process of its own; all are started at once."""
    folder = tmp_path_factory.mktemp("device")
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "analysis", SCRIPT.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    runs = {}
    for group in GROUPS:
        command = [sys.executable, str(SCRIPT), group, str(folder / f"{group}.json")]
        runs[group] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def of(group: str) -> dict[str, Any]:
        if (file := folder / f"{group}.json").exists() and runs[group].poll() is not None:
            return json.loads(file.read_text())
        _, printed = runs[group].communicate(timeout=300)
        assert runs[group].returncode == 0, printed[-3000:]
        return json.loads(file.read_text())

    yield of
    for run in runs.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("group", GROUPS)
def test_a_device_finds_what_the_cpu_finds(group: str, found: Found) -> None:
    wrong = [f"{name}: {error}" for name, error in found(group)["checks"].items() if error]
    assert not wrong, "\n\n".join(wrong)
    assert found(group)["operations"] > 1000


@pytest.mark.parametrize("mistake", ["tensor", "index", "generator", "default device"])
def test_a_planted_mistake_is_found_on_the_device(mistake: str, found: Found) -> None:
    said = {
        "tensor": "aten::embedding: a tensor of the CPU",
        "index": "aten::index: an index or a value of the device, for a tensor of the CPU",
        "generator": "aten::rand: a generator of the CPU",
        "default device": "aten::add: a tensor of the CPU",
    }
    error = found("trainer")["mistakes"][mistake]
    assert error.startswith(said[mistake])
    assert "(recast_train/" in error  # the line


@pytest.mark.parametrize("step", list(TO_HOST))
def test_how_often_a_step_waits_for_the_device(step: str, found: Found) -> None:
    waits = found("trainer")["steps"][step]
    assert waits == {"to_host": TO_HOST[step], "to_device": {}, "sized": {}}
