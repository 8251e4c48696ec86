"""`recast-sim quickstart`: the laboratory in about two minutes."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import PositiveInt

from recast_sim.cli.shared import folder
from recast_sim.commandline import WORKERS, Common, Flag, progress
from recast_sim.exact.instrument import gradient_reports
from recast_sim.experiments.protocol import Protocol, run_protocol, worlds_folder
from recast_sim.experiments.world_setting import Setting, load_world
from recast_sim.field_types import Convergence, GroupSize, Workers, Worlds
from recast_sim.runs import RunWriter, atomic_file
from recast_sim.runs.sweep import Job, open_sweep
from recast_sim.training.training_config import TrainingConfig

COMPARED = ("grpo", "repair_only", "boundary_only", "recast", "sft")
REGIME = (0.85, 0.13, 0.02)
_NAME = "quickstart"  # of its only setting
_PROMPTS, _GROUPS = 2048, 8


@dataclass(frozen=True)
class Quickstart(Common):
    """Calibrated worlds, five constructors, tables and a figure.

    Attributes:
        seeds: number of worlds.
        steps: training steps of 64 prompts.
        convergence: of the base policy: 1 is the early-stopped optimum, below 1 under-trained.
        group_size: rollouts a prompt.
        workers: local processes.
        resume: go on with the study in --out.
    """

    seeds: Worlds = 5
    steps: PositiveInt = 60
    convergence: Convergence = 1.0
    group_size: GroupSize = 32
    workers: Workers = WORKERS
    resume: Flag = False


def quickstart(command: Quickstart) -> None:
    from recast_analysis.reports.quickstart import report as quickstart_report
    from recast_analysis.terminal import finish

    begun = time.perf_counter()
    training = TrainingConfig(steps=command.steps, group_size=command.group_size)
    setting = Setting(
        convergence=command.convergence,
        regime=REGIME,
        regime_group_size=command.group_size,
        calibrate_each=True,
        training=training,
    )
    protocol = Protocol(COMPARED, (0.001, 0.003, 0.01), command.seeds, tuning_seeds=1, metrics=("pass_at_1_greedy",))
    root = folder(command, "quickstart")
    resolved = {"setting": asdict(setting), "protocol": asdict(protocol)}
    writer = RunWriter.open(root, "quickstart", resolved, command.seed, command.resume)
    with progress() as report, open_sweep(root / "jobs", "local", command.workers, report) as submit:
        run_protocol({_NAME: setting}, protocol, command.seed, root / "methods", submit)
        seeds = range(command.seed, command.seed + command.seeds)
        jobs = [Job(("gradients", seed), _gradients, (root, setting, seed)) for seed in seeds]
        found = submit("gradients", jobs)
    with atomic_file(root / "gradients.parquet") as temporary:
        rows = [row for world in found for row in world["reports"]]
        pl.json_normalize(rows, separator=".", infer_schema_length=None).write_parquet(temporary)
    shown = quickstart_report(root)
    (figure,) = shown.save_figures(root)
    summary = shown.summary | {"figure": figure, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary)
    finish(command, summary, shown, "recast-sim gradients")


def _gradients(root: Path, setting: Setting, seed: int) -> dict[str, Any]:
    """Reports of the constructors' gradient estimates at the base policy of one world."""
    world = load_world(worlds_folder(root / "methods", setting), setting.policy, seed)
    size = (setting.training.group_size, _PROMPTS, _GROUPS)
    reports = gradient_reports(world.base, world.environment, COMPARED, *size, seed, setting.training.signal)
    return {"reports": [{"seed": seed, **asdict(report)} for report in reports]}
