"""Layer rules seen from a fresh interpreter: what an import really loads, re-exports included."""

import subprocess
import sys

import pytest

LABORATORY = ("world", "training", "closed_forms", "exact", "experiments", "cli")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["recast_sim", "recast_sim.runs", "recast_sim.configio", "analysis.reports.quickstart", "analysis.cli"]
)
def test_reading_runs_loads_no_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert not loaded & {"torch", "transformers", "safetensors"}


@pytest.mark.parametrize("module", ["recast_sim.signal", "recast_sim.catalog"])
def test_shared_leaves_load_nothing_else_of_ours(module: str) -> None:
    ours = {name for name in loaded_by(f"import {module}") if name.startswith(("recast_sim.", "recast_train", "analysis"))}
    assert ours
    assert all(name.startswith(module) for name in ours)


def test_the_trainer_loads_neither_the_laboratory_nor_another_framework() -> None:
    loaded = loaded_by("import recast_train.rl.rl_loop, recast_train.pipeline.whole_run, recast_train.adapters")
    assert "recast_sim.signal" in loaded
    assert not loaded & {"trl", "verl"}
    assert not loaded & {f"recast_sim.{name}" for name in LABORATORY}
    assert not any(name.startswith("analysis") for name in loaded)
