"""The construction benchmark runs, and fails where it should."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.property


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "construction.py"


def test_the_benchmark_prints_one_json_object_and_passes_an_easy_target():
    small = [sys.executable, str(BENCHMARK), "--json", "--groups", "64", "--repeats", "3", "--target", "2"]
    done = subprocess.run(
        small, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(BENCHMARK.parents[1])}
    )
    result = json.loads(done.stdout)
    assert {"groups", "group_size", "oracle_ms", "construct_ms", "ratio", "target", "met", "torch", "threads"} <= set(result)
    assert (result["groups"], result["group_size"], result["target"], result["met"]) == (64, 32, 2.0, True)
    assert result["ratio"] == pytest.approx(result["oracle_ms"] / result["construct_ms"])


def test_the_benchmark_fails_a_target_out_of_reach(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("benchmark_of_signal", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = str(torch.get_num_threads())
    assert module.main(["--groups", "8", "--repeats", "1", "--target", "1e9", "--threads", threads]) == 1
    assert "missed" in capsys.readouterr().out
