"""`recast-report figures`: the figures of run folders, drawn again."""

import json
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.cli.shared import named
from recast_analysis.drawing.style import save_figure
from recast_analysis.figures import run_figures
from recast_analysis.reports.report import Report
from recast_analysis.reports.run_kinds import find_report
from recast_analysis.terminal import print_report
from recast_sim.commandline import Paths, Printing
from recast_sim.printable import printable
from recast_sim.runs import RunError


@dataclass(frozen=True)
class Figures(Printing):
    """All figures that run folders have data for, as PNG and PDF; what is left out.

    Attributes:
        runs: run folders, whole or killed.
        out: folder for the figures, below it one of each run's name where there are several; default figures/ in each run.
    """

    runs: Paths = ()
    out: Path | None = None


def figures(command: Figures) -> None:
    paths, written = named(command.runs), {}
    for path in paths:
        folder = path / "figures" if command.out is None else command.out / (path.resolve().name if len(paths) > 1 else "")
        if folder in written:
            raise RunError(f"runs: two are called {folder.name!r}; draw them one by one, each with an --out of its own")
        drawn, left_out = run_figures(path, find_report(path))
        written[folder] = {"figures": [str(save_figure(one, folder)) for one in drawn], "left_out": left_out}
    if command.json:
        print(json.dumps(list(written.values())))
        return
    for found in written.values():
        print(*map(printable, found["figures"]), sep="\n")
        print_report(Report({}, [f"left out: {words}" for words in found["left_out"]]))
