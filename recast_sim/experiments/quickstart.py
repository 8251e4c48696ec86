"""A study: several constructors over several calibrated worlds, learning rates tuned on a world that is not reported.

Each world is calibrated by itself, and each run keeps a whole run folder. Layout below the study's folder: `worlds/seed-N`
(config, base policy, gradient reports), `runs/CONSTRUCTOR-seedN` and `tuning/...` (runs), `jobs` (what is done).
"""

import copy
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from recast_sim.comparing import best_rates
from recast_sim.configio import AtLeastOne, Checked
from recast_sim.exact.instrument import gradient_reports
from recast_sim.experiments.world_setting import Setting, calibrate_setting, draw_world, load_world
from recast_sim.runs import RunWriter, read_run, write_json
from recast_sim.runs.sweep import Job, Report, open_sweep
from recast_sim.training.loop import TrainingConfig, TrainingError, train
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.policy import PolicyConfig

COMPARED = ("grpo", "repair_only", "boundary_only", "recast", "sft", "sft_hard_negative")


@dataclass(frozen=True)
class QuickstartConfig(Checked, error=TrainingError):
    """What is compared, where, and how.

    Attributes:
        constructors: their names; the first is the baseline of the budget ratios.
        seeds: reported worlds, with seeds seed .. seed + seeds - 1; world seed + seeds is for tuning.
        regime: (all_zero, single_hit, multi_hit) that every world is calibrated to, on train prompts at `group_size`.
        convergence: of the base policy, see `train_base`.
        learning_rates: grid from which each constructor gets the one of the best final sampled Pass@1 in the tuning world.
        gradient_prompts, gradient_groups: prompts, and groups of each, behind a gradient report.
    """

    constructors: AtLeastOne[str] = COMPARED
    seeds: PositiveInt = 5
    regime: tuple[float, float, float] = (0.85, 0.13, 0.02)
    convergence: float = 1.0
    learning_rates: AtLeastOne[PositiveFloat] = (0.01, 0.03, 0.1, 0.3)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gradient_prompts: PositiveInt = 8192
    gradient_groups: PositiveInt = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.constructors:
            replace(self.training, constructor=name)  # an unknown name fails here, before hours of work


def run_study(
    config: QuickstartConfig, seed: int, root: Path, workers: int, progress: Report = lambda *_: None
) -> dict[str, float]:
    """Run what is not there yet below `root`; returns each constructor's chosen learning rate.

    A world or run that a kill left unfinished is done again, whole ones are kept.
    """
    seeds = range(seed, seed + config.seeds)
    tuning = seed + config.seeds
    with open_sweep(root / "jobs", "local", workers, progress) as submit:
        worlds = [Job(("world", s), prepare_world, (root, config, s, s != tuning)) for s in (tuning, *seeds)]
        submit("calibrating worlds", worlds)
        grid = [(name, rate) for name in config.constructors for rate in config.learning_rates]
        trials = [Job(("tuning", *g), run_one, (root / "tuning", root, config, *g, tuning)) for g in grid]
        results = submit("tuning learning rates", trials)
        scores = [(name, rate, result["score"]) for (name, rate), result in zip(grid, results, strict=True)]
        rates = {name: rate for name, (rate, _) in best_rates(scores).items()}
        runs = [(name, rates[name], s) for name in config.constructors for s in seeds]
        submit("training", [Job(("run", *run), run_one, (root / "runs", root, config, *run)) for run in runs])
    return rates


def prepare_world(root: Path, config: QuickstartConfig, seed: int, with_gradients: bool) -> dict[str, Any]:
    """Calibrate one world, train its base policy, save both, and report its gradients."""
    size = config.training.group_size
    setting = Setting(config.environment, config.policy, config.convergence, config.regime, size, training=config.training)
    info = draw_world(root / "worlds", setting, calibrate_setting(setting, seed), seed)
    if with_gradients:
        world = load_world(root / "worlds", config.policy, seed)
        counts = (size, config.gradient_prompts, config.gradient_groups)
        reports = gradient_reports(world.base, world.environment, config.constructors, *counts, seed, config.training.signal)
        write_json(root / "worlds" / f"seed-{seed}" / "gradients.json", [asdict(report) for report in reports])
    return info


def run_one(folder: Path, root: Path, config: QuickstartConfig, constructor: str, rate: float, seed: int) -> dict[str, float]:
    """Train one constructor from the base policy of one world: its final sampled Pass@1 on held-out prompts."""
    training = replace(config.training, constructor=constructor, learning_rate=rate)
    path = folder / (f"{constructor}-seed{seed}" if folder.name == "runs" else f"{constructor}-lr{rate:g}")
    shutil.rmtree(path, ignore_errors=True)  # what a kill left unfinished
    world = load_world(root / "worlds", config.policy, seed)
    resolved = {"environment": asdict(world.environment.config), "policy": asdict(config.policy)}
    writer = RunWriter.create(path, "simulation", resolved | {"training": asdict(training)}, seed)
    train(copy.deepcopy(world.base), world.start, training, seed, writer)
    writer.close()
    return {"score": float(read_run(path).evals["pass_at_1_sampled"][-1])}
