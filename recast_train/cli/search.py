"""`recast-train search`."""

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
from recast_train.pipeline.start_search import SearchConfig, run_search


@dataclass(frozen=True, kw_only=True)
class Search(Sweeping):
    """Supervised starts from one recipe, judged on validation prompts; all are kept.

    Attributes:
        file: TOML recipe with the keys of the options, or the name of a recipe that comes with recast; options override it.
    """

    file: OptionalFile = None
    config: SearchConfig


def search(command: Search) -> None:
    from recast_analysis.reports.real.search import report as search_report
    from recast_analysis.terminal import finish

    begun = time.perf_counter()
    name = command.file.stem if command.file else "search"
    root = command.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for recipe in command.config.recipes().values():
        load_source(recipe.data)  # bad data fails here, before there is a folder
    writer = RunWriter.open(root, "real-search", asdict(command.config), command.seed, command.resume)
    print(f"device: {device_words(command.config.setting.device)}", file=sys.stderr)
    with progress() as report, open_sweep(root / "jobs", command.engine, command.workers, report) as submit:
        run_search(command.config, command.seed, root, submit)
    found = search_report(root)
    summary = found.summary | {"seconds": round(time.perf_counter() - begun, 1)}
    writer.close(summary=summary)
    finish(command, summary | {"run": str(root)}, found, f"recast-report html {root}")
