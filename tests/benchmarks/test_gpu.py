"""The GPU benchmark's dry run on the CPU: all ways compute the same log-probabilities, a file is written after each case."""

import importlib
import json
from pathlib import Path

import pytest
import torch


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("gpu")


def test_all_ways_compute_the_same_log_probabilities(gpu):
    case, world, device = gpu.DRY_CASES[1], gpu.DRY_WORLD, torch.device("cpu")
    cases = importlib.import_module("gpu_cases")
    model = cases.build(case, world, device)
    batch = cases.Batch.random(case, world, device)
    found = {str(way): torch.cat(list(cases.logprobs(model, batch, way, world))) for way in cases.corners(world.group_size)}
    for rows in (world.group_size, 2):
        plain = found.pop(str(cases.Way(rows, False)))
        assert plain.shape == (case.prompts * rows, case.response)
        for other in (cases.Way(rows, False, True), cases.Way(rows, True)):
            torch.testing.assert_close(found.pop(str(other)), plain, rtol=1e-4, atol=1e-5)
    assert found == {}


def test_counts_of_tokens_and_flops(gpu):
    cases = importlib.import_module("gpu_cases")
    case = cases.Case("tiny", 3, 10, 4)
    assert cases.positions(case, cases.Way(8, False)) == 3 * 8 * 13  # the last token is predicted, never read
    assert cases.positions(case, cases.Way(8, True)) == 3 * (10 + 8 * 3)
    model = cases.build(case, gpu.DRY_WORLD, torch.device("cpu"))
    pairs = 10 * 11 // 2 + 8 * (3 * 10 + 3 * 4 // 2)
    layers, width = model.lm.config.num_hidden_layers, model.lm.config.num_attention_heads * model.lm.config.head_dim
    weights = sum(weight.numel() for weight in model.parameters())
    assert cases.flops(model, case, cases.Way(8, True)) == 6 * weights * 3 * 34 + 12 * layers * width * 3 * pairs


def test_the_dry_run_writes_a_row_for_each_corner(gpu, tmp_path, capsys):
    assert gpu.main(["--dry-run", "--out", str(tmp_path / "dry.json")]) == 0
    written = json.loads((tmp_path / "dry.json").read_text())["gpu"]
    assert len(written["table"]) == len(gpu.DRY_CASES) * 6
    assert written["settings"]["card"].startswith("CPU, dry run")
    by = {row["case"] + row["way"]: row for row in written["table"]}
    plain, dropped = (by[f"tiny, prompt 12, response 3{rows} rows, prompt repeated"] for rows in (4, 2))
    ratios = {entry["name"]: entry["value"] for entry in written["entries"]}
    ratio = ratios["claim 5: tiny, prompt 12, response 3: rows dropped: actor time"]
    assert ratio == pytest.approx(plain["update_s"] / dropped["update_s"])
    assert (tmp_path / "dry.md").read_text() in capsys.readouterr().out


def test_no_card_and_no_time(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert gpu.main(["--dry-run", "--minutes", "0"]) == 0
    assert "not run, the time was up" in capsys.readouterr().out
