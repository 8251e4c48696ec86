"""`recast-train run`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat

from recast_sim.commandline import Common, Flag, OptionalFile, progress
from recast_sim.runs.writer import must_exist
from recast_train.engine import device_words
from recast_train.pipeline.recipe import RealConfig
from recast_train.step_model.machine import CardName


@dataclass(frozen=True, kw_only=True)
class RunRecipe(Common):
    """A whole run from a recipe: data, semantic IDs, supervised start, RL, evaluation.

    Attributes:
        file: TOML recipe with the keys of the options, or the name of a recipe that comes with recast; options override it.
        dry_run: say what the run would take (data, tokens, memory, a step by phase, disk, hours), and do not start it.
        tokens_per_second: of one process, for the hours of a dry run.
        card: whose seconds a dry run gives for a step, by public figures; without it this machine's CPU is measured.
        resume: go on with the run in --out: what is done is kept, what was killed goes on from its checkpoint.
    """

    file: OptionalFile = None
    config: RealConfig
    dry_run: Flag = False
    tokens_per_second: PositiveFloat | None = None
    card: CardName | None = None
    resume: Flag = False


def run(command: RunRecipe) -> None:
    from recast_analysis.reports.real.run import report as run_report
    from recast_analysis.terminal import finish
    from recast_train.pipeline.whole_run import run_real

    name = command.file.stem if command.file else "default"
    root = command.out or Path("runs") / f"real-{name}-{command.seed}"
    if command.dry_run:
        print_forecast(command, root)
        return
    if command.resume:
        must_exist(root)
    if not int(os.environ.get("RANK", "0")):
        print(f"device: {device_words(command.config.device)}", file=sys.stderr)
    with progress() as report:
        run_real(command.config, command.seed, root, command.resume, report)
    if int(os.environ.get("RANK", "0")):  # of several processes one prints and draws
        return
    found = run_report(root)
    (figure,) = found.save_figures(root)
    finish(command, found.summary | {"run": str(root), "figure": figure}, found, f"recast-report html {root}")


def print_forecast(command: RunRecipe, root: Path) -> None:
    from recast_analysis.reports.real.dry_run import report
    from recast_analysis.terminal import finish
    from recast_train.pipeline.forecast import forecast

    found = forecast(command.config, root, command.tokens_per_second, command.card)
    finish(command, found, report(found))
