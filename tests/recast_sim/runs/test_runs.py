import json
from pathlib import Path

import pytest
import torch

from recast_sim.runs import RunError, RunWriter, atomic_directory, derive_seed, find_runs, read_run
from recast_sim.runs.model_state import latest_checkpoint, load_state, save_state


def writer_at(path: Path) -> RunWriter:
    return RunWriter.create(path, "simulation", {"training": {"steps": 3, "rates": (1, 2)}}, seed=4)


def test_manifest_says_where_the_run_comes_from(tmp_path: Path) -> None:
    writer_at(tmp_path).close(summary={"x": 1})
    manifest = read_run(tmp_path).manifest
    assert manifest["seed"] == 4
    assert manifest["status"] == "complete"
    assert manifest["summary"] == {"x": 1}
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["hardware"]) == {"machine", "system", "cores"}


def test_rows_are_readable_while_running_and_after(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    for step in (1, 2, 3):
        writer.step({"step": step, "loss": 0.5 * step})
    writer.evaluation({"step": 3, "score": 1.0})
    writer.groups({"step": [3, 3], "hits": [0, 1]})
    running = read_run(tmp_path)
    assert running.status == "running"
    assert running.steps["loss"].to_list() == [0.5, 1.0, 1.5]
    writer.close()
    closed = read_run(tmp_path)
    assert closed.steps.equals(running.steps)
    assert closed.groups["hits"].to_list() == [0, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "evals.parquet",
        "groups-00000003.parquet",
        "manifest.json",
        "steps.parquet",
    ]


def test_a_line_cut_short_is_left_out_but_damage_inside_is_an_error(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    writer.step({"step": 1})
    writer.step({"step": 2})
    lines = tmp_path / "steps.jsonl"
    lines.write_text(lines.read_text() + '{"step": 3, "lo')
    assert read_run(tmp_path).steps["step"].to_list() == [1, 2]
    lines.write_text('{"step": \n{"step": 2}\n')
    with pytest.raises(RunError, match=r"steps.jsonl: line 1 is not JSON"):
        read_run(tmp_path)


def test_resume_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    writer, model = writer_at(tmp_path), torch.nn.Linear(2, 2)
    for step in range(1, 6):
        writer.step({"step": step})
        writer.groups({"step": [step]})
        if step in (2, 4):
            with writer.checkpoint(step) as folder:
                save_state(folder, model)
    again = RunWriter.resume(tmp_path, {"training": {"steps": 3, "rates": (1, 2)}}, 4)
    assert read_run(tmp_path).steps["step"].to_list() == [1, 2, 3, 4]
    assert read_run(tmp_path).groups["step"].to_list() == [1, 2, 3, 4]
    folder = latest_checkpoint(tmp_path)
    assert folder is not None
    assert [p.name for p in folder.parent.iterdir()] == ["step-00000004"]
    again.close()


def test_resume_before_the_first_checkpoint_starts_with_no_rows(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    writer.evaluation({"step": 0, "score": 0.5})  # written again by a run that starts anew
    writer.step({"step": 1})
    again = RunWriter.resume(tmp_path, {"training": {"steps": 3, "rates": (1, 2)}}, 4)
    again.evaluation({"step": 0, "score": 0.5})
    assert read_run(tmp_path).evals["step"].to_list() == [0]
    assert len(read_run(tmp_path).steps) == 0


@pytest.mark.parametrize(
    ("config", "seed", "words"),
    [({"training": {"steps": 9, "rates": [1, 2]}}, 4, "'training.steps' was 3 and is now 9"), (None, 5, "'seed' was 4")],
)
def test_resume_refuses_another_config(tmp_path: Path, config: dict | None, seed: int, words: str) -> None:
    writer_at(tmp_path)
    with pytest.raises(RunError, match=words):
        RunWriter.resume(tmp_path, config or {"training": {"steps": 3, "rates": [1, 2]}}, seed)


def test_refusals_name_the_path(tmp_path: Path) -> None:
    writer = writer_at(tmp_path)
    with pytest.raises(RunError, match="holds a run already"):
        writer_at(tmp_path)
    writer.step({"step": 1, "a": 1})
    with pytest.raises(RunError, match="steps row has columns"):
        writer.step({"step": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        writer.step({"step": 2, "a": float("nan")})
    writer.close()
    with pytest.raises(RunError, match="complete"):
        RunWriter.resume(tmp_path, {"training": {"steps": 3, "rates": (1, 2)}}, 4)
    with pytest.raises(RunError, match="no run folder"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "steps.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(RunError, match=r"steps.parquet: not a readable parquet"):
        read_run(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(RunError, match="schema_version 99"):
        read_run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunError, match="not JSON at line 1"):
        read_run(tmp_path)


def test_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_directory(tmp_path / "x") as folder:
            (folder / "half").write_text("")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_bring_model_and_optimiser_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimiser.step()
    save_state(tmp_path, model, optimiser, totals={"rollouts": 7})
    other = torch.nn.Linear(3, 2)
    other_optimiser = torch.optim.Adam(other.parameters(), lr=0.1)
    assert load_state(tmp_path, other, other_optimiser) == {"totals": {"rollouts": 7}}
    for m, o in ((model, optimiser), (other, other_optimiser)):
        o.zero_grad()
        m(torch.ones(1, 3)).square().sum().backward()
        o.step()
    assert torch.equal(model.weight, other.weight)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(RunError, match="checkpoint does not load"):
        load_state(tmp_path, other)


def test_derived_seeds_depend_on_every_name() -> None:
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1), derive_seed(0, "b")}
    assert len(seeds) == 5
    assert derive_seed(3, "x", 1) == derive_seed(3, "x", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
