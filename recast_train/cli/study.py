"""`recast-train study`."""

import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from recast_sim.commandline import OptionalFile, Sweeping, progress
from recast_sim.runs import RunWriter
from recast_sim.runs.sweep import open_sweep
from recast_train.data import load_source
from recast_train.engine import device_words
from recast_train.pipeline.real_study import StudyConfig, run_study


@dataclass(frozen=True, kw_only=True)
class Study(Sweeping):
    """Methods from several starts, at rates chosen on validation, with intervals.

    Attributes:
        file: TOML recipe with the keys of the options, or the name of a recipe that comes with recast; options override it.
    """

    file: OptionalFile = None
    config: StudyConfig


def study(command: Study) -> None:
    from recast_analysis.reports.real.study import report as study_report
    from recast_analysis.terminal import finish

    begun = time.perf_counter()
    name = command.file.stem if command.file else "study"
    root = command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for setting in command.config.settings().values():
        load_source(setting.data)  # bad data fails here, before there is a folder
    writer = RunWriter.open(root, "real-study", asdict(command.config), command.seed, command.resume)
    print(f"device: {device_words(command.config.setting.device)}", file=sys.stderr)
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_study(command.config, command.seed, root, submit)
    found = study_report(root)
    figures = found.save_figures(root)
    summary = found.summary | {"figure": figures[0], "figures": figures, "seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary)
    finish(command, summary | {"run": str(root)}, found, f"recast-report html {root}")
