"""`recast-report html`: one self-contained page of run folders."""

import json
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.cli.shared import named
from recast_analysis.page import make_page
from recast_sim.commandline import Common, Paths
from recast_sim.runs import write_text


@dataclass(frozen=True)
class Html(Common):
    """One self-contained HTML page of run folders: tables, figures, provenance, glossary.

    The default of --out is report.html.

    Attributes:
        runs: run folders, whole or killed.
    """

    runs: Paths = ()


def html(command: Html) -> None:
    file = command.out or Path("report.html")
    write_text(file, make_page(named(command.runs)))
    print(json.dumps({"page": str(file)}) if command.json else file)
