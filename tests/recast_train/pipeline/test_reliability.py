"""What stops a run says so in one line and keeps the last good checkpoint; resumed, it ends with the unbroken run's numbers."""

import json
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pipeline_world as world
import pytest
from fake_sink import Library, rows_of
from safetensors import SafetensorError

from recast_sim.configio import load_config
from recast_sim.runs import RunError, read_run, writer
from recast_sim.runs import model_state as checkpoint
from recast_sim.runs.model_state import read_tensors
from recast_train import cli, evaluate
from recast_train.engine import Engine
from recast_train.model import TrainError
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.supervised.windows import PARTS

Lines = Callable[..., str]
Whole = dict[str, Any]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def short(text: str) -> str:
        return text.replace("train_prompts = 41", "train_prompts = 8, prompts = 12").replace("kl = 0.01", "kl = 0.0")

    return world.write_recipe(tmp_path_factory.mktemp("recipe"), ("grpo",), short)


@pytest.fixture(autouse=True)
def small_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout with a long uncommitted diff has a manifest that no small file holds."""
    monkeypatch.setattr(writer, "provenance", lambda: {"git": None})


class Stopped(Exception):
    """A kill that leaves the process alive."""


def stop_at(label: str, step: int) -> Callable[[str, int, int], None]:
    def report(at: str, done: int, total: int) -> None:
        if at == label and done >= step:
            raise Stopped

    return report


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    assert not {"wandb", "trackio"} & set(sys.modules)
    results = run_real(load_config(RealConfig, recipe), world.SEED, tmp_path_factory.mktemp("whole") / "run", resume=False)
    assert not {"wandb", "trackio"} & set(sys.modules)
    return world.without_seconds(json.loads(json.dumps(results)))


@pytest.fixture(scope="module")
def stopped(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were stopped in supervised training and in RL, at step 13 and 3, after the checkpoints of 8 and 2."""
    roots = {}
    for label, step in (("supervised training", 13), ("grpo", 3)):
        roots[label] = tmp_path_factory.mktemp("stopped") / "run"
        with pytest.raises(Stopped):
            run_real(load_config(RealConfig, recipe), world.SEED, roots[label], False, stop_at(label, step))
    return roots


@pytest.fixture
def refused(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lines:
    """Run the command line, which must end with status 2 and one line about the error; the line."""

    def run(root: Path, *options: str) -> str:
        arguments = ["recast-train", "run", str(recipe), "--seed", str(world.SEED), "--out", str(root), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        error = capsys.readouterr().err
        assert stop.value.code == 2, error
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if "recast-train: error: " in line]
        assert lines == error.strip().splitlines()[-1:]
        return lines[0]

    return run


def assert_resumes(recipe: Path, root: Path, whole: Whole) -> None:
    found = run_real(load_config(RealConfig, recipe), world.SEED, root, resume=True)
    assert world.without_seconds(json.loads(json.dumps(found))) == whole
    assert not list(root.rglob(".*.tmp"))
    for stage in ("sft", "rl/grpo"):
        run = read_run(root / stage)
        assert run.steps["step"].to_list() == list(range(1, len(run.steps) + 1))
        assert run.evals["step"].is_unique().all()


# a loss or gradient that is not finite


@pytest.mark.parametrize(("stage", "call", "step"), [("sft", PARTS * 13, 13), ("rl/grpo", PARTS * 24 + 3, 3)])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_not_finite_keeps_the_last_checkpoint(
    stage: str,
    call: int,
    step: int,
    broken: str,
    recipe: Path,
    whole: Whole,
    refused: Lines,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls, step_of, backward = 0, Engine.step, Engine.backward
    last = tmp_path / "run" / stage / "checkpoints" / f"step-{8 if stage == 'sft' else 2:08d}"

    def counted(engine: Engine, loss: Any) -> None:
        nonlocal calls
        calls += 1
        backward(engine, loss * (float("inf") if broken == "gradient" and calls == call else 1.0))

    def broken_step(engine: Engine, model: Any, loss: float, *rest: Any) -> tuple[float, float]:
        return step_of(engine, model, float("nan") if broken == "loss" and calls == call else loss, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "backward", counted)
        patch.setattr(Engine, "step", broken_step)
        line = refused(tmp_path / "run")
    assert f"error: step {step}: loss: " in line
    assert ("loss: nan" in line) == (broken == "loss")
    assert line.endswith(f"lower learning_rate; the last good checkpoint is {last}")
    tensors, slots, _ = read_tensors(last)
    assert all(bool(tensor.isfinite().all()) for tensor in (*tensors.values(), *slots.values()))
    table = "sft" if stage == "sft" else "rl"
    line = refused(tmp_path / "run", "--resume", f"--{table}.learning-rate", "1e-5")
    assert f"config '{table}.learning_rate' was" in line
    assert "resume with the old value or start a new run" in line
    if broken == "loss":
        assert_resumes(recipe, tmp_path / "run", whole)


def test_a_model_that_diverges_at_once(refused: Lines, tmp_path: Path) -> None:
    line = refused(tmp_path / "run", "--sft.learning-rate", "1e20", "--sft.warm-up", "0")
    assert re.search(r"error: step 2: .*lower learning_rate; there is no checkpoint yet$", line)


@pytest.mark.parametrize(("label", "step", "last"), [("sft", 8, None), ("rl/grpo", 3, 2)])
def test_a_validation_that_is_not_finite(
    label: str, step: int, last: int | None, refused: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows, logprobs, search = tmp_path / "run" / label / "steps.jsonl", evaluate.path_logprobs, evaluate.search

    def factor() -> float:
        return float("nan") if rows.exists() and len(rows.read_text().splitlines()) >= step else 1.0

    def found(*given: Any) -> Any:
        leaves, *rest = search(*given)
        return (leaves * factor(), *rest)

    monkeypatch.setattr(evaluate, "path_logprobs", lambda *given: logprobs(*given) * factor())
    monkeypatch.setattr(evaluate, "search", found)
    line = refused(tmp_path / "run")
    folder = tmp_path / "run" / label / "checkpoints"
    kept = f"the last good checkpoint is {folder}/step-{last:08d}" if last else "there is no checkpoint yet"
    assert line.endswith(f"step {step}: probabilities: not finite; the model has diverged, lower learning_rate; {kept}")


# full disks


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may become larger: like a full disk, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_a_row(recipe: Path, whole: Whole, refused: Lines, tmp_path: Path) -> None:
    rows, size = tmp_path / "run" / "sft" / "steps.jsonl", 14_000
    rows.parent.mkdir(parents=True)
    rows.write_text("\n" * (size - 200))
    with small_files(size):
        line = refused(tmp_path / "run")
    assert line.endswith(f"{rows}: cannot be written: File too large; free space there, then go on with --resume")
    assert rows.stat().st_size == size  # cut in the middle of a row
    assert not rows.read_text().endswith("\n")
    assert_resumes(recipe, tmp_path / "run", whole)


def test_a_full_disk_at_a_checkpoint(recipe: Path, whole: Whole, refused: Lines, tmp_path: Path) -> None:
    with small_files(14_000):  # rows fit, a model does not
        line = refused(tmp_path / "run")
    first = tmp_path / "run" / "sft" / "checkpoints" / "step-00000008"
    assert line.endswith(f"{first}: cannot be written: File too large; free space there, then go on with --resume")
    assert list(first.parent.iterdir()) == []
    assert len(read_run(tmp_path / "run" / "sft").steps) == 8
    assert_resumes(recipe, tmp_path / "run", whole)


def test_a_device_without_space(refused: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def save(tensors: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", save)
    line = refused(tmp_path / "run")
    assert "step-00000008: cannot be written: No space left on device; free space there, then go on with --resume" in line
    assert list((tmp_path / "run" / "sft" / "checkpoints").iterdir()) == []


# damaged files


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty_object(file: Path) -> None:
    file.write_text("{}")


def a_list(file: Path) -> None:
    file.write_text("[]")


SFT, GRPO = "sft/checkpoints/step-00000008", "rl/grpo/checkpoints/step-00000002"


@pytest.mark.parametrize(
    ("label", "file", "damage", "deleted"),
    [
        ("supervised training", f"{SFT}/model.safetensors", cut, SFT),
        ("supervised training", f"{SFT}/best.safetensors", Path.unlink, SFT),
        ("supervised training", f"{SFT}/meta.json", empty_object, SFT),
        ("grpo", f"{GRPO}/optimiser.safetensors", cut, GRPO),
        ("grpo", f"{GRPO}/model.safetensors", Path.unlink, GRPO),
        ("grpo", f"{GRPO}/meta.json", cut, GRPO),
        ("grpo", f"{GRPO}/meta.json", a_list, GRPO),
        ("grpo", f"{GRPO}/meta.json", Path.unlink, GRPO),
        ("grpo", "sft/model/model.safetensors", cut, "sft"),
        ("grpo", "sft/evaluation/scores.safetensors", cut, "sft/evaluation"),
        ("grpo", "references.json", cut, "references.json"),
        ("grpo", "seconds.json", a_list, "seconds.json"),
    ],
)
def test_a_damaged_file_is_named_and_can_be_deleted(
    label: str,
    file: str,
    damage: Callable[[Path], None],
    deleted: str,
    recipe: Path,
    whole: Whole,
    stopped: dict[str, Path],
    refused: Lines,
    tmp_path: Path,
) -> None:
    root = tmp_path / "run"
    shutil.copytree(stopped[label], root)
    damage(root / file)
    line = refused(root, "--resume")
    named = root / (deleted if file.startswith("sft/eval") else file)
    assert f"error: {named}: " in line
    assert f"; delete {root / deleted}, then --resume " in line
    shutil.rmtree(root / deleted) if (root / deleted).is_dir() else (root / deleted).unlink()
    assert_resumes(recipe, root, whole)


def test_an_older_checkpoint_is_gone_on_from(stopped: dict[str, Path], recipe: Path, whole: Whole, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(stopped["grpo"], root)
    good = root / GRPO
    shutil.copytree(good, good.with_name("step-00000003"))
    cut(good.with_name("step-00000003") / "model.safetensors")
    with pytest.raises(RunError, match=r"step-00000003/model\.safetensors: .* delete .*step-00000003, then --resume"):
        run_real(load_config(RealConfig, recipe), world.SEED, root, resume=True)
    shutil.rmtree(good.with_name("step-00000003"))
    assert_resumes(recipe, root, whole)


def test_damaged_results_of_a_complete_run(recipe: Path, whole: Whole, refused: Lines, tmp_path: Path) -> None:
    root = tmp_path / "run"
    run_real(load_config(RealConfig, recipe), world.SEED, root, resume=False)
    cut(root / "results.json")
    line = refused(root, "--resume")
    assert f"error: {root / 'results.json'}: not readable" in line
    assert f"delete {root / 'manifest.json'}, then --resume" in line
    (root / "manifest.json").unlink()
    assert_resumes(recipe, root, whole)


# another config


@pytest.mark.parametrize(
    ("options", "key", "fresh"),
    [
        (("--rl.learning-rate", "0.1"), "rl.learning_rate", False),
        (("--rl.rollout.temperature", "1.5"), "rl.rollout.temperature", False),
        (("--data.core", "2"), "data.core", False),
        (("--methods", "grpo", "sft"), "methods", False),
        (("--rl.rollout.temperature", "1.5"), "training.rollout.temperature", True),  # a stage's own manifest
        (("--sft.batch", "32"), "training.batch", True),
    ],
)
def test_another_config_is_refused_by_its_key(
    options: tuple[str, ...], key: str, fresh: bool, stopped: dict[str, Path], refused: Lines, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(stopped["grpo"], root)
    if fresh:
        (root / "manifest.json").unlink()
    line = refused(root, "--resume", *options)
    assert f"config {key!r} was " in line
    assert line.endswith("resume with the old value or start a new run")


# sinks


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_sink_gets_the_rows(
    name: str, recipe: Path, whole: Whole, refused: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root, library = tmp_path / "run", Library(name)
    monkeypatch.setitem(sys.modules, name, library)
    library.fail_at = 4
    line = refused(root, "--sink", name)
    assert f"RealConfig.sink: {name} failed: ConnectionResetError: the line is dead; mend it or set sink to 'none'" in line
    library.fail_at = 10**9
    config = load_config(RealConfig, recipe)
    found = run_real(config.__class__(**{**vars(config), "sink": name}), world.SEED, root, resume=True)
    assert world.without_seconds(json.loads(json.dumps(found))) == whole
    sft, broken, resumed = library.runs
    key = "id" if name == "wandb" else "name"
    assert resumed[key] == broken[key] != sft[key]
    assert {run["resume"] for run in library.runs} == {"allow"}
    assert [run["finished"] for run in library.runs] == [True, False, True]
    assert [run["config"]["resumed_from_step"] for run in library.runs] == [0, 0, 2]
    assert resumed["config"]["training"]["constructor"] == "grpo"
    for stage, run, first in (("sft", sft, 1), ("rl/grpo", resumed, 3)):
        written = read_run(root / stage)
        for table in ("steps", "evals"):
            rows = [row for row in getattr(written, table).to_dicts() if row["step"] >= first]
            expected = [{key: value for key, value in row.items() if value is not None} for row in rows]
            assert rows_of(run, table) == expected
            assert expected


def test_a_run_goes_on_without_its_sink(
    recipe: Path, whole: Whole, refused: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = Library("wandb")
    library.fail_at = 2
    monkeypatch.setitem(sys.modules, "wandb", library)
    refused(tmp_path / "run", "--sink", "wandb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert_resumes(recipe, tmp_path / "run", whole)


def test_a_sink_that_is_not_installed(refused: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    line = refused(tmp_path / "run", "--sink", "trackio")
    assert line.endswith("RealConfig.sink: trackio is not installed; pip install trackio, or set sink to 'none'")
    assert not (tmp_path / "run").exists()
    assert "--sink" in refused(tmp_path / "run", "--sink", "tensorboard")


def test_a_recipe_may_not_name_another_sink() -> None:
    with pytest.raises(TrainError, match=r"RealConfig\.sink: 'stdout' must be one of 'none', 'wandb' or 'trackio'"):
        RealConfig(sink="stdout")  # type: ignore[arg-type]
