"""`recast-sim quickstart`: the laboratory in about two minutes."""

import time
from dataclasses import asdict, dataclass

from pydantic import PositiveInt

from recast_sim.cli.shared import finish, folder
from recast_sim.commandline import WORKERS, Common, Flag, progress
from recast_sim.experiments.quickstart import QuickstartConfig, run_study
from recast_sim.runs import RunWriter
from recast_sim.training.loop import TrainingConfig


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

    seeds: PositiveInt = 5
    steps: PositiveInt = 100
    convergence: float = 1.0
    group_size: PositiveInt = 32
    workers: PositiveInt = WORKERS
    resume: Flag = False


def quickstart(command: Quickstart) -> None:
    from analysis.reports.quickstart import report as quickstart_report

    begun = time.perf_counter()
    training = TrainingConfig(steps=command.steps, group_size=command.group_size)
    config = QuickstartConfig(seeds=command.seeds, convergence=command.convergence, training=training)
    root = folder(command, "quickstart")
    writer = RunWriter.open(root, "quickstart", asdict(config), command.seed, command.resume)
    with progress() as report:
        rates = run_study(config, command.seed, root, command.workers, report)
    found = quickstart_report(root)
    (figure,) = found.save_figures(root)
    summary = found.summary | {"figure": figure, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary | {"learning_rates": rates})
    finish(command, summary, found)
