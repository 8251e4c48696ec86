"""A study: several constructors over several calibrated worlds, learning rates tuned on a world that is not reported.

Runs go to local worker processes; each is seeded by its own name, so the worker count does not change a number. Layout below
the study's folder: `worlds/seed-N` (config, base policy, gradient reports), `runs/CONSTRUCTOR-seedN` and `tuning/...` (runs).
"""

import copy
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from recast_sim.calibration import calibrate, hit_rates
from recast_sim.environment import Environment, EnvironmentConfig, best_possible, make_environment
from recast_sim.exact import gradient_reports
from recast_sim.policy import PolicyConfig, TreePolicy
from recast_sim.pretraining import train_base
from recast_sim.runs import RunWriter, atomic_directory, read_run, write_json
from recast_sim.seeding import torch_generator
from recast_sim.theory import fit_beta
from recast_sim.training import TrainingConfig, TrainingError, train

COMPARED = ("grpo", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class StudyConfig:
    """What is compared, where, and how.

    Attributes:
        constructors: their names; the first is the baseline of the budget ratios.
        seeds: reported worlds, with seeds seed .. seed + seeds - 1; world seed + seeds is for tuning.
        regime: (all_zero, single_hit, multi_hit) that every world is calibrated to, on train prompts at `group_size`.
        convergence: of the base policy, see `train_base`.
        learning_rates: grid from which each constructor gets the one of the best final sampled Pass@1 in the tuning world.
        gradient_prompts, gradient_groups: prompts, and groups of each, behind a gradient report.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    constructors: tuple[str, ...] = COMPARED
    seeds: int = 5
    regime: tuple[float, float, float] = (0.85, 0.13, 0.02)
    convergence: float = 1.0
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gradient_prompts: int = 256
    gradient_groups: int = 32

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.learning_rates or not self.constructors:
            raise TrainingError(f"StudyConfig: seeds {self.seeds}, learning_rates and constructors must not be empty")
        for name in self.constructors:
            replace(self.training, constructor=name)  # an unknown name fails here, before hours of work


@dataclass(frozen=True)
class World:
    """A calibrated environment, its base policy, and what was measured of them (`info`)."""

    environment: Environment
    base: TreePolicy
    info: dict[str, Any]


Report = Callable[[str, int, int], None]


def run_study(config: StudyConfig, seed: int, root: Path, workers: int, progress: Report = lambda *_: None) -> dict[str, float]:
    """Run what is not there yet below `root`; returns each constructor's chosen learning rate.

    A world or run that a kill left unfinished is done again, whole ones are kept.
    """
    seeds = range(seed, seed + config.seeds)
    tuning = seed + config.seeds
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:

        def all_of(label: str, calls: Iterable[Callable[[], Any]]) -> list[Any]:
            futures = [pool.submit(call) for call in calls]
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(label, done, len(futures))
            return [future.result() for future in futures]

        all_of("calibrating worlds", (partial(prepare_world, root, config, s, s != tuning) for s in (tuning, *seeds)))
        grid = [(name, rate) for name in config.constructors for rate in config.learning_rates]
        tuned = all_of("tuning learning rates", (partial(run_one, root / "tuning", root, config, *g, tuning) for g in grid))
        rates = _best_rates(grid, tuned)
        runs = [(name, rates[name], s) for name in config.constructors for s in seeds]
        all_of("training", (partial(run_one, root / "runs", root, config, *run) for run in runs))
    return rates


def prepare_world(root: Path, config: StudyConfig, seed: int, with_gradients: bool) -> None:
    """Calibrate one world, train its base policy, report its gradients, and save it all."""
    folder = root / "worlds" / f"seed-{seed}"
    if folder.exists():
        return
    found = calibrate(config.regime, config.training.group_size, config.environment, config.policy, config.convergence, seed)
    environment = make_environment(found.config, seed)
    base = train_base(environment, config.policy, config.convergence, seed)
    info: dict[str, Any] = {
        "environment": asdict(found.config),
        "base": {name: getattr(base, name) for name in ("steps", "convergence", "untrained", "optimum")},
        "best_possible": best_possible(environment),
        "beta_fit": fit_beta(hit_rates(environment, base)),
        "gradients": [],
    }
    if with_gradients:
        size = (config.training.group_size, config.gradient_prompts, config.gradient_groups)
        reports = gradient_reports(base.policy, environment, config.constructors, *size, seed, config.training.signal)
        info["gradients"] = [asdict(report) for report in reports]
    with atomic_directory(folder) as temporary:
        save_file(base.policy.state_dict(), temporary / "base.safetensors")
        write_json(temporary / "world.json", info)


@lru_cache(maxsize=2)
def load_world(root: Path, config: PolicyConfig, seed: int) -> World:
    """A world that `prepare_world` saved."""
    folder = root / "worlds" / f"seed-{seed}"
    info = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    knobs = info["environment"] | {"sizes": tuple(info["environment"]["sizes"])}
    environment = make_environment(EnvironmentConfig(**knobs), seed)
    base = TreePolicy(environment.catalog, environment.config.dim, config, torch_generator(seed, "policy initialisation"))
    base.load_state_dict(load_file(folder / "base.safetensors"))
    return World(environment, base, info)


def run_one(folder: Path, root: Path, config: StudyConfig, constructor: str, rate: float, seed: int) -> float:
    """Train one constructor from the base policy of one world; returns its final sampled Pass@1 on held-out prompts."""
    training = replace(config.training, constructor=constructor, learning_rate=rate)
    path = folder / (f"{constructor}-seed{seed}" if folder.name == "runs" else f"{constructor}-lr{rate:g}")
    if not (path / "manifest.json").exists() or read_run(path).status != "complete":
        shutil.rmtree(path, ignore_errors=True)
        world = load_world(root, config.policy, seed)
        resolved = {"environment": asdict(world.environment.config), "policy": asdict(config.policy)}
        writer = RunWriter.create(path, "simulation", resolved | {"training": asdict(training)}, seed)
        train(copy.deepcopy(world.base), world.base, world.environment, training, seed, writer)
        writer.close()
    return float(read_run(path).evals["pass_at_1_sampled"][-1])


def _best_rates(grid: list[tuple[str, float]], scores: list[float]) -> dict[str, float]:
    best: dict[str, tuple[float, float]] = {}
    for (name, rate), score in zip(grid, scores, strict=True):
        best[name] = max(best.get(name, (score, rate)), (score, rate))
    return {name: rate for name, (_, rate) in best.items()}


def _one_thread() -> None:
    torch.set_num_threads(1)
