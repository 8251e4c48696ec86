"""What the command of a finished run printed and drew, again, from its folder alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.budget_report import draw_budget, print_budget, summarise_budget
from analysis.claims import print_claims, summarise_claims
from analysis.gradients import draw_gradients, print_gradients
from analysis.map import draw_map, print_map, summarise_map
from analysis.real import draw_real, print_real
from analysis.real_study import print_real_study, summarise_real_study
from analysis.real_study_figure import draw_real_study
from analysis.study import draw_study, print_study, summarise_study
from recast_sim.runs import RunError, read_run


def print_again(root: Path, console: Console) -> None:
    """Tables of a run of any kind that has some.

    Raises:
        RunError: not a run folder, not finished, or of a kind without tables.
    """
    _of(root, 0)(root, console)


def draw_again(root: Path) -> list[str]:
    """Draw its figures anew into its folder; returns their paths."""
    return _of(root, 1)(root)


def _of(root: Path, which: int) -> Callable[..., Any]:
    kind = read_run(root).manifest["kind"]
    if kind not in _KINDS:
        raise RunError(f"{root}: a run of kind {kind!r} has no tables; kinds that have: {', '.join(_KINDS)}")
    return _KINDS[kind][which]


_KINDS: dict[str, tuple[Callable[[Path, Console], None], Callable[[Path], list[str]]]] = {
    "quickstart": (
        lambda root, console: print_study(summarise_study(root), console),
        lambda root: [str(draw_study(root, summarise_study(root)))],
    ),
    "budget": (
        lambda root, console: print_budget(summarise_budget(root), console),
        lambda root: [str(draw_budget(root, summarise_budget(root)))],
    ),
    "map": (
        lambda root, console: print_map(summarise_map(root), console),
        lambda root: draw_map(root, summarise_map(root)),
    ),
    "claims": (lambda root, console: print_claims(summarise_claims(root), console), lambda root: []),
    "gradients": (print_gradients, lambda root: [str(draw_gradients(root))]),
    "real-study": (
        lambda root, console: print_real_study(summarise_real_study(root), console),
        lambda root: [str(draw_real_study(root, summarise_real_study(root)))],
    ),
    "real": (print_real, lambda root: [str(draw_real(root))]),
}
