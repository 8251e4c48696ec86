"""The fit finds the constants of a machine that follows the model; the stored measurements bear the error that is stated."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recast_train.step_model import machine
from recast_train.step_model.fitting import WIDTH, by_flops_alone, fit, fit_link, median, ratios, timed_setting, worst
from recast_train.step_model.step_seconds import columns
from recast_train.step_model.step_work import PHASES, step_work

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
STORED = json.loads((BENCHMARKS / "results/steps-cpu.json").read_text())
FITTED, HELD_OUT = ([row for row in STORED["steps"] if row["fitted"] is kept] for kept in (True, False))
CONSTANTS = np.array([2e-11, 5e-11, 4e-6, 3e-3])


def made_up(row: dict[str, Any], factor: float = 1.0) -> dict[str, Any]:
    """A timed step on a machine of CONSTANTS."""
    work = step_work(timed_setting(row))
    return {**row, "seconds": {phase: factor * float(columns(work[phase], WIDTH) @ CONSTANTS) for phase in PHASES}}


def test_the_fit_finds_the_constants() -> None:
    rows = [made_up(row) for row in FITTED]
    found = fit(rows)
    assert found == pytest.approx(CONSTANTS, rel=1e-3)
    assert worst(ratios(rows, found)["step"]) == pytest.approx(1, abs=1e-3)


def test_a_disturbed_step_pulls_little() -> None:
    found = fit([*map(made_up, FITTED[1:]), made_up(FITTED[0], 5.0)])
    assert found == pytest.approx(CONSTANTS, rel=0.1)
    assert median([0.5, 1.0, 2.0, 4.0]) == pytest.approx(2)
    assert worst([0.2, 1.5]) == pytest.approx(5)


def test_the_link_is_found() -> None:
    rows = [{"bytes": size, "seconds": size / 2 / 3e9 + 2e-4} for size in (1e3, 1e5, 1e6, 1e7)]
    assert fit_link(rows) == pytest.approx((3e9, 2e-4), rel=1e-3)


def test_held_out_models_were_not_fitted() -> None:
    sizes, others = ({(row["hidden"], row["layers"]) for row in rows} for rows in (FITTED, HELD_OUT))
    assert len(sizes) >= 4
    assert len(others) >= 3
    assert not sizes & others
    assert max(others) > max(sizes)  # larger ones too
    assert {row["method"] for row in STORED["steps"]} == {"grpo", "recast"}
    assert STORED["machine"]["cpu"]


def test_error_on_sizes_that_were_not_fitted() -> None:
    found = ratios(HELD_OUT, fit(FITTED))
    assert median(found["step"]) <= 1.06
    assert worst(found["step"]) <= 1.14
    assert worst(found["factor of the methods"]) <= 1.08
    assert median(by_flops_alone(FITTED, HELD_OUT)) > 1.3  # the other constants are needed
    for phase in ("rollout", "old", "reference", "actor"):
        assert worst(found[phase]) <= 1.16


def test_the_shipped_constants_are_those_of_the_stored_measurements() -> None:
    stored = STORED["constants"]
    shipped = {
        "flops_share": machine.CPU_FLOPS,
        "bandwidth_share": machine.CPU_BANDWIDTH,
        "call": machine.CPU_CALL,
        "one_pass": machine.CPU_PASS,
        "link": machine.CPU_LINK,
        "latency": machine.CPU_LATENCY,
    }
    assert shipped == pytest.approx(stored, rel=0.03)
    flop, byte, call, one_pass = fit(FITTED)
    peaks = STORED["peaks"]
    again = [1 / flop / peaks["flops"], 1 / byte / peaks["bytes"], call, one_pass]
    assert again == pytest.approx([stored[name] for name in ("flops_share", "bandwidth_share", "call", "one_pass")], rel=0.02)


@pytest.mark.parametrize("row", STORED["steps"], ids=lambda row: f"{row['method']}-{row['hidden']}-{row['items']}")
def test_counted_tokens_of_the_timed_steps(row: dict[str, Any]) -> None:
    """What a run logged: at most the model's positions, less where rows happened to share a code."""
    step = timed_setting(row)
    assert row["counts"]["optimiser_steps"] == step.updates
    assert row["counts"]["generated_tokens"] == step.prompts * step.group_size * step.response
    assert 0.94 * step.updates * step.positions <= row["counts"]["actor_tokens"] <= step.updates * step.positions


def test_a_tiny_cell_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from recast_train.engine import Engine, EngineConfig

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_step_cells", BENCHMARKS / "step_cells.py")
    assert spec is not None
    assert spec.loader is not None
    cells = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, cells)
    spec.loader.exec_module(cells)
    monkeypatch.setattr(cells, "ITEMS", 60)
    with Engine(EngineConfig()) as engine:
        grpo, recast = cells.step_rows(engine, cells.Cell(16, 1, 2, 3, 4, 30), 1)
    assert (timed_setting(grpo).kept, timed_setting(recast).kept) == (4, 2)
    for row in (grpo, recast):
        assert min(row["seconds"].values()) > 0
        assert row["counts"]["actor_tokens"] <= 2 * timed_setting(row).positions
