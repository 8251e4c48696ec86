"""The simulator's benchmark runs on tiny trees, and fails where it should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "simulator.py"
FIGURES = {"groups_per_second", "ratio_to_multinomial", "flat_cost", "catalog_seconds", "signal_share"}


@pytest.fixture
def benchmark(monkeypatch):
    """The module, on trees and batches so small that a full run takes a second."""
    spec = importlib.util.spec_from_file_location("benchmark_of_simulator", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SIZES", (8, 8, 8))
    monkeypatch.setattr(module, "FLAT_PROMPTS", (8, 16))
    monkeypatch.setattr(module, "MILLION", 200)
    monkeypatch.setattr(module, "MILLION_SIZES", (8, 8, 8))
    monkeypatch.setattr(module, "MILLION_PROMPTS", 8)
    return module


def test_the_quick_run_prints_one_json_object():
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(BENCHMARK.parents[1])},
    )
    result = json.loads(done.stdout)
    assert result["agree"] is True
    assert max(result["deviation"].values()) < 5
    assert {"torch", "threads", "settings"} <= set(result)


def test_a_contender_that_draws_wrongly_is_found(benchmark, monkeypatch):
    def greedy(policy, x_PD, group_size, generator):
        logprob, leaf = policy.leaf_logprobs(x_PD).max(1, keepdim=True)
        return leaf.expand(-1, group_size), logprob.expand(-1, group_size)

    monkeypatch.setattr(benchmark, "sample_multinomial", greedy)
    with pytest.raises(SystemExit, match="disagree with enumeration"):
        benchmark.check_quick(4)


@pytest.mark.parametrize(("floor", "status"), [(0.0, 0), (1e12, 1)])
def test_a_full_run_reports_every_target_and_fails_one_out_of_reach(benchmark, monkeypatch, capsys, floor, status):
    easy = dict.fromkeys(FIGURES, (0.0, True))
    monkeypatch.setattr(benchmark, "TARGETS", easy | {"groups_per_second": (floor, True)})
    small = ["--prompts", "8", "--group-size", "2", "--repeats", "1", "--threads", str(torch.get_num_threads())]
    assert benchmark.main([*small, "--json"]) == status
    result = json.loads(capsys.readouterr().out)
    assert FIGURES == set(result["target"]) == set(result["met"])
    assert all(result[name] > 0 for name in FIGURES)
    assert result["met"]["groups_per_second"] is (status == 0)
    assert (result["prompts"], result["group_size"], result["repeats"]) == (8, 2, 1)
    assert benchmark.main(small) == status
    assert ("MISSED" in capsys.readouterr().out) is (status == 1)
