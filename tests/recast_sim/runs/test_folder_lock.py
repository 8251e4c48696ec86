"""One writer a run folder, until it closes or its process dies; what is resumed must be there, and whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from recast_sim.runs import RunError, RunWriter, read_run
from recast_sim.runs.folder_lock import LOCK, lock_folder

CONFIG = {"training": {"steps": 3}}
HOLDER = """
import sys, time
from pathlib import Path
from recast_sim.runs.writer import RunWriter
writer = RunWriter.create(Path(sys.argv[1]), "simulation", {"training": {"steps": 3}}, 0)
writer.step({"step": 1})
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> tuple[Path, subprocess.Popen[str]]:
    """A run that another process is writing."""
    root = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return root, process


def test_a_second_writer_is_refused_until_the_first_is_killed(held: tuple[Path, subprocess.Popen[str]]) -> None:
    root, process = held
    with pytest.raises(RunError, match=f"process {process.pid} on .* writes here now; wait for it or stop it, then --resume"):
        RunWriter.resume(root, CONFIG, 0)
    with pytest.raises(RunError, match="writes here now"):
        RunWriter.create(root, "simulation", CONFIG, 0)
    assert read_run(root).steps["step"].to_list() == [1]  # nothing was rewound, and reading needs no lock
    process.kill()
    process.wait()
    RunWriter.resume(root, CONFIG, 0).close()
    assert not (root / LOCK).exists()
    assert read_run(root).status == "complete"


def test_a_process_may_go_on_with_what_it_writes(tmp_path: Path) -> None:
    first = lock_folder(tmp_path)
    assert lock_folder(tmp_path / "." / "") is first
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_resume_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match="nowhere: there is no such folder to resume; give the run's --out, or leave --resume out"
    ):
        RunWriter.open(tmp_path / "nowhere", "budget", {}, 0, resume=True)
    assert not (tmp_path / "nowhere").exists()


def written(path: Path, checkpoint: bool = False) -> RunWriter:
    writer = RunWriter.create(path, "simulation", CONFIG, 0)
    writer.evaluation({"step": 0, "score": 0.5})
    for step in (1, 2, 3):
        writer.step({"step": step})
        writer.groups({"step": [step]})
    if checkpoint:
        with writer.checkpoint(3):
            pass
    return writer


@pytest.mark.parametrize("name", ["steps.parquet", "evals.parquet", "groups-00000003.parquet"])
def test_rows_of_a_complete_run_that_were_deleted_are_missed(tmp_path: Path, name: str) -> None:
    written(tmp_path / "run").close()
    (tmp_path / "run" / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: the run was complete and this file is gone; delete .*run and run it anew"):
        RunWriter.resume(tmp_path / "run", CONFIG, 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("steps.jsonl", "holds 0 of the 3 steps"),
        ("evals.jsonl", "holds 0 of the 1 evals"),
        ("groups-00000003.parquet", "holds 0 of the 1 groups"),
    ],
)
def test_rows_of_a_killed_run_that_were_deleted_are_missed(tmp_path: Path, name: str, said: str) -> None:
    writer = written(tmp_path / "run", checkpoint=True)
    del writer
    (tmp_path / "run" / name).unlink()
    with pytest.raises(RunError, match=f"{said} that its checkpoint has counted; they were deleted: delete .* and run it anew"):
        RunWriter.resume(tmp_path / "run", CONFIG, 0)


def test_a_sweeps_table_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "budget", CONFIG, 0)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "runs.parquet").write_bytes(b"x")
    writer.close()
    with pytest.raises(RunError, match="complete, there is nothing to resume"):
        RunWriter.resume(tmp_path, CONFIG, 0)
    (tmp_path / "methods" / "runs.parquet").unlink()
    again = RunWriter.open(tmp_path, "budget", CONFIG, 0, resume=True)
    assert again.manifest["status"] == "running"
    again.close()
