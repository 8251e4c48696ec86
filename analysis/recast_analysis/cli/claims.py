"""`recast-report claims`: the paper's claims against run folders."""

import json
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.claims import claims_page, read_evidence
from recast_analysis.cli.shared import named
from recast_analysis.terminal import print_markdown
from recast_sim.commandline import Paths, Printing
from recast_sim.runs import find_runs, write_text


@dataclass(frozen=True)
class ClaimsPage(Printing):
    """The paper's twelve claims against run folders and benchmark results, as Markdown.

    Attributes:
        runs: run folders, or folders that hold some, of `recast-sim claims`, quickstart, budget, `recast-train study` and run;
            results files of the benchmarks (.json).
        out: file for the page; default none, it is printed.
    """

    runs: Paths = ()
    out: Path | None = None


def claims(command: ClaimsPage) -> None:
    sources = read_evidence([found for path in named(command.runs) for found in _evidence_at(path)])
    if command.json:
        print(json.dumps([{"path": str(s.path), "world": s.world, "rows": s.rows, "note": s.note} for s in sources]))
    elif command.out is None:
        print_markdown(claims_page(sources))
    else:
        write_text(command.out, claims_page(sources))


def _evidence_at(path: Path) -> list[Path]:
    """A results file or a run folder as it is; of any other folder the runs in it, not those that are part of a run."""
    if path.suffix == ".json" or (path / "manifest.json").exists():
        return [path]
    found = set(find_runs([path]))
    return sorted(run for run in found if found.isdisjoint(run.parents))
