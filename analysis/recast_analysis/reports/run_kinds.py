"""The report of a run folder of any kind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recast_analysis.claims import simulated as claims
from recast_analysis.reports import budget, check, gradients, quickstart, theory, thoughts, training
from recast_analysis.reports import map as heat_map
from recast_analysis.reports.real import run, search, study
from recast_analysis.reports.report import Report
from recast_analysis.result_lines import smoke_words
from recast_analysis.show import one_run
from recast_sim.runs import RunError
from recast_sim.runs.reader import fits_its_kind, read_manifest

REPORTS: dict[str, Callable[[Path], Report]] = {
    "quickstart": quickstart.report,
    "budget": budget.report,
    "map": heat_map.report,
    "claims": claims.report,
    "check": check.report,
    "gradients": gradients.report,
    "theory": theory.report,
    "thoughts": thoughts.report,
    "real-search": search.report,
    "real-study": study.report,
    "real": run.report,
    "simulation": training.report,
    "real-rl": one_run,
    "real-sft": one_run,
}


def run_report(root: Path) -> Report:
    """What the command of a run printed and drew, from its folder alone; of a smoke run that it is one, first.

    Raises:
        RunError: not a run folder, not finished, or of a kind without tables.
    """
    manifest = read_manifest(root)
    kind = manifest["kind"]
    if kind not in REPORTS:
        raise RunError(f"{root}: a run of kind {kind!r} has no tables; kinds that have: {', '.join(REPORTS)}")
    with fits_its_kind(root):
        found, smoke = REPORTS[kind](root), smoke_words(kind, manifest["config"])
    return replace(found, parts=[smoke, *found.parts]) if smoke else found


def find_report(root: Path) -> Report | str:
    """`run_report`, or why there is none."""
    try:
        return run_report(root)
    except RunError as error:
        return str(error)
