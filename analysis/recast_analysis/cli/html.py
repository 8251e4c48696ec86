"""`recast-report html`: one self-contained page of run folders."""

import json
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.cli.shared import named
from recast_analysis.page import make_page
from recast_sim.commandline import Paths, Printing
from recast_sim.runs import write_text


@dataclass(frozen=True)
class Html(Printing):
    """One self-contained HTML page of run folders: tables, figures, provenance, glossary.

    Attributes:
        runs: run folders, whole or killed.
        out: file of the page.
    """

    runs: Paths = ()
    out: Path = Path("report.html")


def html(command: Html) -> None:
    write_text(command.out, make_page(named(command.runs)))
    print(json.dumps({"page": str(command.out)}) if command.json else command.out)
