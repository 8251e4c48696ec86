"""The actor's benchmark on a tiny model: its ways agree, its entries are the ratios of its table, memory has a process."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_of_actor", FOLDER / "actor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(module, "SIZE", "tiny")
    monkeypatch.setattr(module, "ITEMS", 200)
    monkeypatch.setattr(module, "PROMPTS", {6: 2, 64: 1})
    monkeypatch.setattr(module, "QUICK_CELLS", ((6, 160),))
    return module


def test_a_tiny_run(actor: Any) -> None:
    result = actor.measure(quick=True)
    (row,) = result.table
    assert row["limit"] == 32 * (6 + 4) / (6 + 2 * 3)
    found = {entry.name: entry for entry in result.entries}
    assert found["claim 5: dropping rows alone, full logits, least of the cells"].value == row["full 32"] / row["full 2"]
    assert found["prompt 6, vocabulary 160: shared and dropped against full"].value == row["full 32"] / row["ours 2"]
    assert min(seconds for name, seconds in row.items() if name.split()[0] in actor.WAYS) > 0


def test_peaks_are_held_against_verls_way(actor: Any) -> None:
    prompt, vocabulary = actor.CELLS[-1]
    row = {"prompt": prompt, "vocabulary": vocabulary} | {f"{way} {kept}": kept / 2 for way in actor.WAYS for kept in (32, 2)}
    peaks = {
        f"{way} {kept}": size * kept
        for way, size in (("full", 2**25), ("response", 2**24), ("ours", 2**23))
        for kept in (32, 2)
    }
    found = actor.entries([row], peaks)
    assert (found[-1].value, found[-1].met) == (100 * 2**24 / 2**30, True)
    saved = [entry for entry in found if entry.name.startswith("claim 7")]
    assert [entry.value for entry in saved] == [100 * (1 - 2 / 32)] * 3


def test_ways_that_disagree_end_it(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = actor.World(6, 160, 2)
    assert actor.check(world, 3) < 1e-5
    monkeypatch.setattr(actor, "ours", lambda world, kept: 2 * actor.repeated(world, kept))
    with pytest.raises(SystemExit, match=r"the ways disagree: gradients are 1\.0e"):
        actor.check(world, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_peak_is_that_of_the_pass(actor: Any) -> None:
    few, many = (actor.activations(way, 32, 64, 8000) for way in ("ours", "full"))
    assert many > 32 * 68 * 8000 * 4 > few
