"""Benchmarks of whole commands: what a process took, what is held against which target, and one that hangs or fails."""

import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SLEEP = "import json, sys, time; sys.stdout.write(json.dumps({'entries': []})); sys.stdout.flush(); time.sleep(60)"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Benchmarks import each other by name, as scripts do."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def of(name):
    return importlib.import_module(name)


def test_what_a_command_took():
    found = of("harness").spent(sys.executable, "-c", "import time; x = bytes(50_000_000); time.sleep(0.2); print('done')")
    assert found.printed == "done\n"
    assert found.seconds > 0.2 > found.processor > 0
    assert 50_000_000 < found.peak < 2_000_000_000


def test_a_command_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        of("harness").spent(sys.executable, "-c", "1 / 0")


def fake(monkeypatch, name, command_to_result):
    """The benchmark `name`, its commands answered by a function."""
    module = of(name)
    monkeypatch.setattr(module, "spent", command_to_result)
    return module


def test_the_import_of_the_signal_module_is_clocked_behind_torch(monkeypatch):
    harness, calls = of("harness"), []

    def answer(*command):
        calls.append(command)
        return harness.Spent(0.0, 2.0, 0, "0.05" if "recast_sim.signal" in str(command) else "")

    entries = fake(monkeypatch, "start_up", answer).measure(quick=True).entries
    assert [(entry.value, entry.met) for entry in entries] == [(0.05, True), (2.0, False)]
    assert len(calls) == 2 * 5


def test_an_audit_is_held_against_targets_at_its_full_size_alone(monkeypatch):
    harness = of("harness")

    def answer(*command):
        if "--out" not in command:  # the dump
            Path(command[2]).write_bytes(b"1234")
        return harness.Spent(16.0, 0.0, 900_000_000, "")

    audit = fake(monkeypatch, "audit_size", answer)
    assert [entry.met for entry in audit.measure(quick=False).entries] == [False, True]
    assert [entry.met for entry in audit.measure(quick=True).entries] == [None, None]
    assert audit.measure(quick=True).table[0]["bytes"] == 4


def test_a_verdict_is_as_wide_as_its_wider_interval(monkeypatch):
    harness = of("harness")
    gains = {"same": {"value": 0.1, "low": 0.06, "high": 0.14}, "fresh": {"value": 0.0, "low": -0.06, "high": 0.06}}
    summary = {"metrics": {"pass_at_1_greedy": {"recast": {"versus_grpo": {"by_setting": gains}}}}}
    verdict = fake(monkeypatch, "verdict", lambda *_: harness.Spent(700.0, 1300.0, 0, json.dumps(summary)))
    entries = verdict.measure(quick=False).entries
    assert [entry.value for entry in entries] == [700.0, pytest.approx(6.0)]
    assert [entry.met for entry in entries] == [True, False]


def test_a_sweep_runs_the_same_jobs_on_one_worker_and_on_two(monkeypatch):
    scaling, jobs = of("sweep_scaling"), {1: [], 2: []}

    @contextmanager
    def in_this_process(folder, engine, workers):
        def submit(label, some):
            jobs[workers] += [job.names for job in some]
            return [job.function(*job.arguments) for job in some]

        yield submit

    monkeypatch.setattr(scaling, "open_sweep", in_this_process)
    found = scaling.measure(quick=True)
    assert found.entries[0].value == found.table[0]["s"] / found.table[1]["s"]
    assert jobs[1] == jobs[2]
    assert {"same prompts", "fresh prompts"} <= {name for names in jobs[1] for name in names if isinstance(name, str)}


def test_every_benchmark_of_the_list_is_a_script():
    assert all((BENCHMARKS / f"{name}.py").exists() for name in of("run").BENCHMARKS)


def test_one_benchmark_that_hangs_or_fails_stops_no_other(monkeypatch, tmp_path, capsys):
    run = of("run")
    result = {"entries": [{"name": "figure", "met": False, "value": 1.0, "unit": "", "target": 2, "at_least": True}]}
    rest = {"table": [], "settings": {}, "notes": [], "machine": {}}
    (tmp_path / "hangs.py").write_text(SLEEP)
    (tmp_path / "fails.py").write_text("1 / 0")
    (tmp_path / "works.py").write_text(f"print({json.dumps(json.dumps(result | rest))})")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "BENCHMARKS", ("hangs", "fails", "works"))
    monkeypatch.setattr(run, "LONGEST", 1)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "out.json")])
    assert run.main() == 1
    printed = capsys.readouterr().out
    assert "hangs was stopped after 1 s" in printed
    assert "fails failed with exit status 1" in printed
    assert "target missed: figure" in printed
    assert list(json.loads((tmp_path / "out.json").read_text())) == ["works"]
