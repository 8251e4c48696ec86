"""Sweeps: local processes and a real local Ray, resumed, the same numbers for any worker count."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recast_sim.runs import RunError, derive_seed
from recast_sim.runs.sweep import Job, SweepError, open_sweep


def draw(folder: str, name: str, seed: int) -> dict[str, Any]:
    (Path(folder) / f"{name.replace('/', '-')}-{seed}").touch(exist_ok=False)  # a second call of the same job fails
    return {"name": name, "number": derive_seed(seed, name) % 1000}


def fail_on_two(folder: str, seed: int) -> dict[str, Any]:
    if seed == 2 and not (Path(folder) / "mended").exists():
        raise ValueError("two is not ready")
    return {"seed": seed}


def jobs(folder: Path, count: int = 5) -> list[Job]:
    folder.mkdir(parents=True, exist_ok=True)
    return [Job(("draw", name, seed), draw, (str(folder), name, seed)) for name in ("a", "b/c") for seed in range(count)]


def results(folder: Path, engine: str, workers: int) -> list[dict[str, Any]]:
    with open_sweep(folder / "jobs", engine, workers) as submit:  # type: ignore[arg-type]
        return submit("drawing", jobs(folder / "marks"))


def test_engines_and_worker_counts_give_the_same_results(tmp_path: Path) -> None:
    expected = [{"name": name, "number": derive_seed(seed, name) % 1000} for name in ("a", "b/c") for seed in range(5)]
    assert results(tmp_path / "one", "local", 1) == expected
    assert results(tmp_path / "two", "local", 2) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_results_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    expected = results(tmp_path / "local", "local", 1)
    assert results(tmp_path / "ray", "ray", 2) == expected
    assert results(tmp_path / "ray", "local", 1) == expected  # nothing is run again, or the marks would refuse


def test_a_failed_job_keeps_the_others_and_a_sweep_goes_on(tmp_path: Path) -> None:
    tasks = [Job(("task", seed), fail_on_two, (str(tmp_path), seed)) for seed in range(4)]
    with pytest.raises(ValueError, match="two is not ready") as failed, open_sweep(tmp_path / "jobs", "local", 1) as submit:
        submit("tasks", tasks)
    assert "in job task 2" in failed.value.__notes__[0]
    kept = {file.name for file in (tmp_path / "jobs").iterdir()}
    assert {tasks[0].file_name, tasks[1].file_name} <= kept
    assert tasks[2].file_name not in kept
    (tmp_path / "mended").touch()
    seen: list[tuple[str, int, int]] = []
    with open_sweep(tmp_path / "jobs", "local", 1, lambda *now: seen.append(now)) as submit:
        assert submit("tasks", tasks) == [{"seed": seed} for seed in range(4)]
    assert seen[0] == ("tasks", len(kept), 4)
    assert seen[-1] == ("tasks", 4, 4)


def sleep(folder: str, seconds: float) -> dict[str, Any]:
    (Path(folder) / f"worker-{os.getpid()}").touch()
    time.sleep(seconds)
    return {}


SLEEPER = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from recast_sim.runs.sweep import Job, open_sweep
from test_sweep import sleep
if __name__ == "__main__":
    with open_sweep(Path({folder!r}) / "jobs", "local", 1) as submit:
        submit("sleeping", [Job(("sleep",), sleep, ({folder!r}, 60.0))])
"""


def test_workers_die_with_a_killed_sweep(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    while not (workers := list(tmp_path.glob("worker-*"))):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    pid = int(workers[0].name.split("-")[1])
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"worker {pid} outlived its sweep")


def killed_once(folder: str) -> dict[str, Any]:
    if not (mark := Path(folder) / "killed").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory ends
    return {"done": True}


def test_a_killed_worker_is_one_line_and_the_sweep_goes_on(tmp_path: Path) -> None:
    tasks = [Job(("task", seed), fail_on_two, (str(tmp_path), seed)) for seed in range(2)]
    tasks.append(Job(("killed",), killed_once, (str(tmp_path),)))
    said = "workers: one was killed, .* the results so far are kept: go on with --resume"
    with pytest.raises(SweepError, match=said), open_sweep(tmp_path / "jobs", "local", 1) as submit:
        submit("tasks", tasks)
    with open_sweep(tmp_path / "jobs", "local", 1) as submit:
        assert submit("tasks", tasks)[-1] == {"done": True}


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"a": NaN}', b"[" * 5000])
def test_a_damaged_result_says_what_to_delete(tmp_path: Path, content: bytes) -> None:
    task = Job(("killed",), killed_once, (str(tmp_path),))
    (tmp_path / task.file_name).write_bytes(content)
    with pytest.raises(RunError, match=r"delete .*, then --resume makes it anew"), open_sweep(tmp_path, "local", 1) as submit:
        submit("tasks", [task])


def test_file_names_are_safe_and_differ() -> None:
    names = [Job(("run", "recast w_minus=0.3", 1), draw, ()), Job(("run", "recast w_minus=0.3/1"), draw, ())]
    assert len({job.file_name for job in names}) == 2
    assert all("/" not in job.file_name and " " not in job.file_name for job in names)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SweepError, match="workers: 0 must be at least 1"), open_sweep(tmp_path, "local", 0):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(SweepError, match=r"'ray' is not installed; pip install 'recast-rl\[sweep\]'"),
        open_sweep(tmp_path, "ray", 1),
    ):
        pass
