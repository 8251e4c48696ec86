"""The benchmarks of the signal module run on small batches, and miss a target where they should."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.property

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Function from a name to a benchmark's module; one torch thread outlives none of them."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    yield importlib.import_module
    torch.set_num_threads(threads)


def run(module, capsys):
    status = module.main(module.measure, module.__doc__, ["--json", "--quick"])
    return status, json.loads(capsys.readouterr().out)


def test_construction_compares_ways_that_agree(benchmark, capsys, monkeypatch):
    module = benchmark("construction")
    monkeypatch.setattr(module, "QUICK_SIZES", {8: 1})
    monkeypatch.setattr(module, "verl", dict)
    status, result = run(module, capsys)
    ratios = {entry["name"]: entry["value"] for entry in result["entries"]}
    assert ratios.keys() == {f"construction: recast against {peer}, 8 groups" for peer in ("a stand-in for verl's loop", "TRL")}
    assert min(ratios.values()) > 0
    assert status == 0
    ways = {row["way"]: row["ms"] for row in result["table"]}
    assert {"recast", "grpo", "TRL", "a stand-in for verl's loop", "Python loop over recast's groups"} <= ways.keys()
    assert min(ways.values()) > 0
    assert any("verl is not installed" in note for note in result["notes"])


def test_construction_refuses_ways_that_disagree(benchmark):
    module = benchmark("construction")
    rewards = torch.eye(4)
    with pytest.raises(SystemExit, match="grpo and verl disagree"):
        module._agree("verl", rewards, rewards.view(-1))


def test_trl_is_left_out_where_its_source_has_changed(benchmark, monkeypatch):
    peers = benchmark("construction_peers")
    monkeypatch.setattr(peers, "TRL_EXPRESSIONS", ("no such expression",))
    ways, why = peers.trl()
    assert not ways
    assert "does not hold 'no such expression'" in why


def test_structural_scores_of_ids_and_text_agree(benchmark, capsys, monkeypatch):
    module = benchmark("structural")
    monkeypatch.setattr(module, "PROMPTS", 4)
    status, result = run(module, capsys)
    assert status == 0
    assert len(result["entries"]) == 2
    assert min(entry["value"] for entry in result["entries"]) > 0
    truth = "<s_a_1><s_b_2><s_c_3><s_a_7><s_b_7><s_c_7>"
    assert module.score_string("<s_a_1><s_b_2><s_c_4><s_a_7><s_b_0><s_c_0>", truth) == pytest.approx((0.1 + 0.01) / 2)
    assert module.score_string("no SID", truth) == 0.0
