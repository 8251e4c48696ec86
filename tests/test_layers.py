"""Layer rules seen from a fresh interpreter: what an import really loads, re-exports included."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

LABORATORY = ("world", "training", "closed_forms", "exact", "experiments", "thoughts", "cli")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["recast_sim", "recast_sim.runs", "recast_sim.configio", "recast_analysis.reports.quickstart", "recast_analysis.cli"],
)
def test_reading_runs_loads_no_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert not loaded & {"torch", "transformers", "safetensors"}


@pytest.mark.parametrize("module", ["recast_sim.signal", "recast_sim.catalog"])
def test_shared_leaves_load_nothing_else_of_ours(module: str) -> None:
    ours = {
        name for name in loaded_by(f"import {module}") if name.startswith(("recast_sim.", "recast_train", "recast_analysis"))
    }
    assert ours
    assert all(name.startswith((module, "recast_sim.plugins", "recast_sim.errors")) for name in ours)


def test_the_signal_module_loads_torch_and_numpy_alone() -> None:
    """Its import takes little longer than torch's (benchmarks/start_up.py)."""
    beside = loaded_by("import recast_sim.signal") - loaded_by("import torch, numpy")
    assert {name for name in beside if "." not in name} <= {"recast_sim"}


def test_the_trainer_loads_neither_the_laboratory_nor_another_framework() -> None:
    loaded = loaded_by("import recast_train.rl.rl_loop, recast_train.pipeline.whole_run, recast_train.adapters")
    assert "recast_sim.signal" in loaded
    assert not loaded & {"trl", "verl", "vllm"}
    assert not loaded & {f"recast_sim.{name}" for name in LABORATORY}
    assert not any(name.startswith("recast_analysis") for name in loaded)


ROOT = Path(__file__).parents[1]
MODULES = [path for package in ("recast_sim", "recast_train", "analysis") for path in (ROOT / package).rglob("*.py")]


def test_a_files_name_has_one_meaning() -> None:
    """A file of `cli/` and the one of `experiments/` or `reports/` that has its name are of one command."""
    names = Counter(path.stem for path in MODULES if path.stem != "__init__" and path.parent.name not in ("cli", "reports"))
    assert names
    assert [name for name, count in names.items() if count > 1] == []


def test_a_classs_name_has_one_meaning() -> None:
    found = Counter(
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in found.items() if count > 1] == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_folder_can_be_held_in_the_head(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 13
