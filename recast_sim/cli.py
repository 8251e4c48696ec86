"""`recast-sim`: the laboratory's command line."""

import copy
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from rich.console import Console

from recast_sim.calibration import CalibrationError, calibrate
from recast_sim.catalog import CatalogError
from recast_sim.configio import Common, Flag, Nested, OptionalFile, progress, run_command
from recast_sim.environment import EnvironmentConfig, WorldError, make_environment
from recast_sim.policy import PolicyConfig, PolicyError
from recast_sim.pretraining import train_base
from recast_sim.runs import RunError, RunWriter, read_run, write_json
from recast_sim.signal import SignalError
from recast_sim.study import StudyConfig, run_study
from recast_sim.training import TrainingConfig, TrainingError, train

_ERRORS = (SignalError, CatalogError, WorldError, PolicyError, CalibrationError, TrainingError, RunError, OSError)


@dataclass(frozen=True)
class Quickstart(Common):
    """Calibrated worlds, six constructors, tables and a figure.

    Attributes:
        seeds: number of worlds.
        steps: training steps of 64 prompts.
        convergence: of the base policy: 1 is the early-stopped optimum, below 1 under-trained.
        group_size: rollouts a prompt.
        workers: local processes.
        resume: go on with the study in --out.
    """

    seeds: int = 5
    steps: int = 100
    convergence: float = 1.0
    group_size: int = 32
    workers: int = min(2, os.cpu_count() or 1)
    resume: Flag = False


@dataclass(frozen=True)
class RunConfig:
    """A single run: a world, a base policy and a training run. The keys of a `recast-sim train` file."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    convergence: float = 1.0
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True)
class Train(Common):
    """One constructor in one world, from a TOML file and options.

    Attributes:
        file: TOML file with the keys of the options; options override it.
        resume: go on with the run in --out at its last checkpoint.
    """

    file: OptionalFile = None
    config: Annotated[RunConfig, Nested] = field(default_factory=RunConfig, metadata={"type": RunConfig})
    resume: Flag = False


@dataclass(frozen=True)
class Calibrate(Common):
    """Find an environment and a base policy that show a regime.

    Attributes:
        regime: shares of all-zero, single-hit and multi-hit groups.
        group_size: rollouts a prompt.
        convergence: of the base policy.
    """

    regime: tuple[float, float, float] = (0.85, 0.13, 0.02)
    group_size: int = 32
    convergence: float = 1.0
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


def quickstart(command: Quickstart) -> None:
    from analysis.study import draw_study, print_study, summarise_study

    begun = time.perf_counter()
    training = TrainingConfig(steps=command.steps, group_size=command.group_size)
    config = StudyConfig(seeds=command.seeds, convergence=command.convergence, training=training)
    root = _folder(command, "quickstart")
    writer = _open(root, command.resume, "quickstart", asdict(config), command.seed)
    with progress() as report:
        rates = run_study(config, command.seed, root, command.workers, report)
    summary = summarise_study(root)
    summary |= {"figure": str(draw_study(root, summary)), "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary | {"learning_rates": rates})
    _finish(command, summary, lambda console: print_study(summary, console))


def train_command(command: Train) -> None:
    torch.set_num_threads(1)  # tensors this small only lose by more
    config = command.config
    root = _folder(command, f"train-{config.training.constructor}")
    environment = make_environment(config.environment, command.seed)
    base = train_base(environment, config.policy, config.convergence, command.seed).policy
    policy = copy.deepcopy(base)
    writer = _open(root, command.resume, "simulation", asdict(config), command.seed)
    with progress() as report:
        steps = config.training.steps
        train(policy, base, environment, config.training, command.seed, writer, lambda step: report("training", step, steps))
    writer.close()
    final = {**read_run(root).steps.tail(1).to_dicts()[0], **read_run(root).evals.tail(1).to_dicts()[0], "run": str(root)}
    _finish(command, final, lambda console: console.print(final))


def calibrate_command(command: Calibrate) -> None:
    found = calibrate(
        command.regime, command.group_size, command.environment, command.policy, command.convergence, command.seed
    )
    result = {"environment": asdict(found.config), "regime": found.regime, "beta_fit": found.beta_fit}
    if command.out is not None:
        command.out.mkdir(parents=True, exist_ok=True)
        write_json(command.out / "calibration.json", result)
    _finish(command, result, lambda console: console.print(result))


def _folder(command: Common, name: str) -> Path:
    return command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _open(root: Path, resume: bool, kind: str, config: dict[str, Any], seed: int) -> RunWriter:
    if resume and (root / "manifest.json").exists():
        return RunWriter.resume(root, config, seed)
    return RunWriter.create(root, kind, config, seed)


def _finish(command: Common, result: dict[str, Any], show: Any) -> None:
    if command.json:
        print(json.dumps(result, allow_nan=False))
    else:
        console = Console(width=max(165, Console().width))
        show(console)
        for key in ("run", "figure", "seconds"):
            if key in result:
                console.print(f"{key}: {result[key]}", highlight=False, soft_wrap=True)


def main() -> None:
    commands = {
        "quickstart": (Quickstart, quickstart),
        "train": (Train, train_command),
        "calibrate": (Calibrate, calibrate_command),
    }
    about = "The laboratory for learning-signal mechanics of sparse-hit group-based RL."
    sys.exit(run_command("recast-sim", about, commands, _ERRORS))
