"""Training runs of any run folder, simulated or real, in one form: what each method logged, from each start, with each seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.measures.comparison import Comparison
from recast_sim.runs import find_runs, read_run
from recast_sim.runs.reader import read_manifest


@dataclass(frozen=True)
class Trajectory:
    """One training run.

    Attributes:
        setting: what it started from, "" where the folder knows one start only.
        method: as the folder names it.
        steps: a row a step; of a comparison that keeps evaluations alone, a row an evaluation with means since the one before.
        evals: a row an evaluation, the first before training.
        draws: whether it needs rollouts, as far as the folder knows.
        training: its config, empty in a comparison.
    """

    setting: str
    method: str
    seed: int
    steps: pl.DataFrame
    evals: pl.DataFrame
    draws: bool = True
    training: dict[str, Any] = field(default_factory=dict)


def read_trajectories(root: Path, metric: str | None = None) -> list[Trajectory]:
    """The training runs of a run folder, whole or killed; none for a kind that trains nothing (gradients, theory, map).

    Args:
        metric: of a comparison, take each method at the learning rate tuned for this metric (default the first).

    Raises:
        RunError: no run folder, a damaged one, or a comparison that is not finished.
    """
    kind = read_manifest(root)["kind"]
    if kind in ("simulation", "real-rl"):
        return [_one(root, "")]
    if kind == "real":
        return [_one(path, "") for path in _below(root / "rl")]
    if kind == "real-study":  # settings/LABEL/seed-S/rl/METHOD; what chose the rates lies in .../tune
        return [_one(path, path.parents[2].name) for path in _below(root / "settings") if path.parent.name == "rl"]
    if kind in ("quickstart", "budget", "claims"):
        return comparison_trajectories(Comparison.read(root / "methods"), metric)
    return []


def comparison_trajectories(found: Comparison, metric: str | None = None) -> list[Trajectory]:
    """The reported runs of a comparison, at the rates tuned for one metric (default the first)."""
    return [
        Trajectory(setting, method, seed, frame[1:], frame, found.draws(method))
        for setting in found.settings
        for method in found.methods
        for seed, frame in found.frames(setting, method, metric or found.metrics[0]).items()
    ]


def by_method(runs: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Runs of each method, by seed."""
    methods: dict[str, list[Trajectory]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        methods.setdefault(run.method, []).append(run)
    return methods


def by_setting(runs: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """Runs from each start, in the order of the folder."""
    return {name: [run for run in runs if run.setting == name] for name in dict.fromkeys(run.setting for run in runs)}


def _below(folder: Path) -> list[Path]:
    return find_runs([folder]) if folder.exists() and any(folder.rglob("manifest.json")) else []


def _one(path: Path, setting: str) -> Trajectory:
    run = read_run(path)
    training = run.manifest["config"]["training"]
    simulated = run.manifest["kind"] == "simulation"
    drawn = simulated or "rollouts" not in run.steps.columns or bool((run.steps["rollouts"] > 0).any())
    method = training["constructor"] if simulated else path.name
    return Trajectory(setting, method, run.manifest["seed"], run.steps, run.evals, drawn, training)
