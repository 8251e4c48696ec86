"""Kinds of run folders: what the command of each printed and drew, again, from the folder alone."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from analysis.claims import print_claims, summarise_claims
from analysis.drawing.style import Drawn
from analysis.reports.budget import budget_figure, print_budget, summarise_budget
from analysis.reports.gradients import gradients_figure, print_gradients
from analysis.reports.map import map_figures, print_map, summarise_map
from analysis.reports.quickstart import print_study, study_figure, summarise_study
from analysis.reports.run import print_real, real_figure
from analysis.reports.study import print_real_study, summarise_real_study
from analysis.reports.study_figure import real_study_figure
from analysis.reports.theory import print_theory, theory_figure
from analysis.show import run_summary, runs_table
from recast_sim.runs import RunError, read_run
from recast_sim.runs.reader import read_manifest


def print_again(root: Path, console: Console) -> None:
    """The tables of a run of any kind.

    Raises:
        RunError: not a run folder, not finished, or of a kind without tables.
    """
    _of(root)[0](root, console)


def draw_again(root: Path) -> list[Drawn]:
    """The figures that the command drew, none for a kind that draws none. Raises RunError as `print_again` does."""
    return _of(root)[1](root)


_Print = Callable[[Path, Console], None]
_Draw = Callable[[Path], list[Drawn]]


def _of(root: Path) -> tuple[_Print, _Draw]:
    kind = read_manifest(root)["kind"]
    if kind not in _KINDS:
        raise RunError(f"{root}: a run of kind {kind!r} has no tables; kinds that have: {', '.join(_KINDS)}")
    return _KINDS[kind]


def _print_one(root: Path, console: Console) -> None:
    console.print(runs_table([run_summary(read_run(root))]))


_ONE: tuple[_Print, _Draw] = (_print_one, lambda root: [])
_KINDS: dict[str, tuple[_Print, _Draw]] = {
    "quickstart": (
        lambda root, console: print_study(summarise_study(root), console),
        lambda root: [study_figure(root, summarise_study(root))],
    ),
    "budget": (
        lambda root, console: print_budget(summarise_budget(root), console),
        lambda root: [budget_figure(root, summarise_budget(root))],
    ),
    "map": (
        lambda root, console: print_map(summarise_map(root), console),
        lambda root: map_figures(summarise_map(root)),
    ),
    "claims": (lambda root, console: print_claims(summarise_claims(root), console), lambda root: []),
    "gradients": (print_gradients, lambda root: [gradients_figure(root)]),
    "theory": (
        lambda root, console: print_theory(read_manifest(root)["summary"], console),
        lambda root: [theory_figure(root)],
    ),
    "real-study": (
        lambda root, console: print_real_study(summarise_real_study(root), console),
        lambda root: [real_study_figure(root, summarise_real_study(root))],
    ),
    "real": (print_real, lambda root: [real_figure(root)]),
    "simulation": _ONE,
    "real-rl": _ONE,
    "real-sft": _ONE,
}
