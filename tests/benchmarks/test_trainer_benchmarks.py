"""The benchmarks of the trainer run on tiny sizes; their contenders agree, and one that does not is found."""

import importlib
from pathlib import Path

import pytest
import torch

from recast_train.model import ModelConfig

TINY = ModelConfig(hidden=16, layers=1, heads=2, feed_forward=24, dropout=0.0, attention_dropout=0.0)


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Benchmarks import each other by name, as scripts do."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


def patched(monkeypatch, name, **values):
    module = importlib.import_module(name)
    for key, value in values.items():
        monkeypatch.setattr(module, key, value)
    return module


def test_all_ways_of_decoding_find_the_same_beams(monkeypatch):
    sizes = {"PROMPTS": 2, "BEAMS": 3, "HISTORY": 2, "MODEL": TINY, "VOCABULARIES": {40: (6, 5, 4)}}
    decoding = patched(monkeypatch, "decoding", **sizes)
    row = decoding.measure_cell(60, 40, 1, generate=True)
    assert row["items"] == 60
    assert row["ratio"] == pytest.approx(row["look-up a beam ms"] / row["constraint, ours ms"])
    assert min(row["ratio of decode"], row["ratio to generate"]) > 0


def test_a_decoder_with_other_beams_is_found(monkeypatch):
    decoding = patched(monkeypatch, "decoding")
    tokens, score = torch.tensor([[[1, 2], [1, 3]]]), torch.tensor([[-0.1, -0.2]])
    decoding.check_same({"one": lambda: (tokens, score), "tied": lambda: (tokens.flip(1), score)})
    for other in ((tokens + 1, score), (tokens, score - 0.1)):
        with pytest.raises(SystemExit, match="another finds other beams"):
            decoding.check_same({"one": lambda: (tokens, score), "another": lambda other=other: other})


def test_the_index_is_measured_without_the_table_of_codes(monkeypatch):
    decoding = patched(monkeypatch, "decoding")
    seconds, size = decoding.measure_index((2, 2), 4, 1)
    assert seconds > 0
    words = (1 + 2 + 4) + (2 + 3) + 4  # last codes of the nodes, offsets of two levels, a leaf an item
    assert size == pytest.approx(8 * words / 1e6)


def test_slopes_are_the_exponents_of_power_laws(monkeypatch):
    growth = patched(monkeypatch, "growth", GROUPS=(2, 4), ITEMS=(20, 40), SIZES=(6, 5, 4), HISTORY=2, WIDTH=3, GROUP=2)
    assert growth.slope({size: 3.0 * size**1.5 for size in (1, 4, 16)}) == pytest.approx(1.5)
    points = {2: {"rollout": lambda: None}, 4: {"rollout": lambda: None}}
    entries, rows = growth.sweep("prompts a step", points, 1)
    assert [entry.name for entry in entries] == ["rollout, by prompts a step"]
    assert [row["to"] for row in rows] == [2, 4]
    assert rows[0]["rollout ms"] > 0
    assert set(growth._by_items(40, 2)) == {"rollout", "evaluation"}
    for way in growth._by_items(40, 2).values():
        way()


def test_a_step_keeps_two_rows_of_a_group_and_counts_what_it_spends(monkeypatch):
    ours = patched(monkeypatch, "step_ours", GROUP=4, HISTORY=2, STEP_ITEMS=20, STEP_SIZES=(4, 3, 5))
    found = ours.measure("tiny", 2, 1)
    assert [found[f"grpo {n}"]["actor_rows"] for n in (1, 2)] == [8, 16]
    assert found["recast 1"]["actor_rows"] <= 4
    assert all(of["generated_tokens"] == 2 * 4 * 3 for of in found.values())
    assert [found[f"recast {n}"]["optimiser_steps"] for n in (1, 2)] == [1, 2]
    assert found["grpo 1"]["old"] == 0 < found["grpo 2"]["old"]
    assert all(of["reference"] > 0 for of in found.values())


def test_trl_takes_the_same_steps(monkeypatch):
    pytest.importorskip("trl")
    theirs = patched(monkeypatch, "step_trl", GROUP=4, HISTORY=2, STEP_ITEMS=20, STEP_SIZES=(4, 3, 5))
    found = theirs.measure("tiny", 2, 1)
    assert [found[f"trl {n}"]["actor_rows"] for n in (1, 2)] == [8, 16]
    assert all(of["generated_tokens"] == 2 * 4 * 3 for of in found.values())
    assert found["trl 1"]["actor_tokens"] == 8 * (1 + 2 * 3 + 3)
    assert found["trl 1"]["old"] == 0 < found["trl 2"]["old"]
    step = patched(monkeypatch, "step")
    row = step._row("trl 2", found["trl 2"])
    assert row["rows old / reference / actor"] == "8 / 8 / 16"
    assert row["step ms"] == pytest.approx(sum(row[f"{part} ms"] for part in step.PARTS[:-1]), rel=0.05)


def test_a_supervised_step_is_held_against_a_matrix_product(monkeypatch):
    sizes = {"ITEMS": 60, "SIZES": (6, 5, 4), "BATCH": 12, "EDGE": 64, "MODELS": {"a": TINY}}
    result = patched(monkeypatch, "supervised", **sizes).measure(quick=True)
    laid_out, one_pass = result.table
    real, share, against, tokens = (entry.value for entry in result.entries)
    assert real == 100 * laid_out["real positions"] > 100 * one_pass["real positions"]
    assert laid_out["GFLOP"] < one_pass["GFLOP"]
    assert share == pytest.approx(laid_out["of the matrix product"] * real)
    assert against == pytest.approx(one_pass["ms"] / laid_out["ms"])
    assert tokens > 0


def test_the_actors_step_is_held_against_a_matrix_product(monkeypatch):
    sizes = {"PROMPTS": 16, "EDGE": 64, "HISTORY": 2, "GROUP": 4, "STEP_ITEMS": 20, "STEP_SIZES": (4, 3, 5), "MODEL": TINY}
    share = patched(monkeypatch, "actor_share", **sizes, THREADS=1)
    result = share.measure(quick=True)
    every, two = result.table
    assert every["GFLOP"] > two["GFLOP"] > 0
    assert [entry.value for entry in result.entries] == [100 * row["of the matrix product"] for row in (every, two)]
    assert [entry.target for entry in result.entries] == [None, None]


def test_flops_are_those_of_the_matrix_products(monkeypatch):
    world = patched(monkeypatch, "world")
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert world.flops(lambda: (left @ right).exp()) == 2 * 2 * 3 * 5
