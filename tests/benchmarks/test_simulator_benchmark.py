"""The simulator's benchmark runs on tiny trees, and fails where it should."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The module, on trees and batches so small that a run takes a second."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("simulator")
    small = {"SIZES": (8, 8, 8), "PROMPTS": 8, "FLAT_PROMPTS": (8, 16, 32), "MILLION": 200, "MILLION_SIZES": (8, 8, 8)}
    for name, value in (small | {"MILLION_PROMPTS": 8}).items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module.simulator_step, "STEPS", 1)
    return module


def test_a_contender_that_draws_wrongly_is_found(benchmark, monkeypatch):
    def greedy(policy, x_PD, group_size, generator):
        logprob, leaf = policy.leaf_logprobs(x_PD).max(1, keepdim=True)
        return leaf.expand(-1, group_size), logprob.expand(-1, group_size)

    monkeypatch.setattr(benchmark, "sample_multinomial", greedy)
    with pytest.raises(SystemExit, match="disagree with enumeration"):
        benchmark.check_distribution(4)


def test_a_plain_loop_that_takes_another_gradient_is_found(benchmark, monkeypatch):
    right = benchmark.simulator_step.plain_loss
    monkeypatch.setattr(benchmark.simulator_step, "plain_loss", lambda *given: 1.1 * right(*given))
    with pytest.raises(SystemExit, match="the two steps differ"):
        benchmark.simulator_step.measure_step(2)


def test_a_run_holds_its_figures_against_the_targets(benchmark):
    result = benchmark.measure(quick=True)
    targets = {entry.name: entry.target for entry in result.entries if entry.target is not None}
    assert sorted(targets.values()) == [1.0, 1.2, 1.5]
    assert all(entry.value > 0 for entry in result.entries if "peak" not in entry.name and entry.unit != "ms")
    counts = {entry.name: entry.value for entry in result.entries if entry.unit == "operations"}
    assert set(counts) == {f"a training step: {name}" for name in ("rollouts", "signal", "update", "by hand")}
    assert [row["prompts"] for row in result.table] == [8, 16]
