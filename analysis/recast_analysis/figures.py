"""All figures of a run folder: what its command drew, and the paper's mechanism figures that it has data for."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from recast_analysis.drawing.style import Drawn
from recast_analysis.measures.actor_cost import corners_figure
from recast_analysis.measures.trajectories import read_trajectories
from recast_analysis.reports.mechanism import MECHANISMS, mechanism_figure
from recast_analysis.reports.report import Report
from recast_sim.runs import RunError
from recast_sim.runs.reader import fits_its_kind, read_manifest

_DRAWN_BY_COMMAND = {"budget": {"budget"}}  # mechanism figures that a command's own figure shows already


def run_figures(root: Path, report: Report | str) -> tuple[list[Drawn], list[str]]:
    """Figures of a run folder, whole or killed, and for each one that is left out a sentence that says why.

    Args:
        report: of that run, or why there is none.

    Raises:
        RunError: not a run folder, or a damaged one.
    """
    kind = read_manifest(root)["kind"]
    found, left_out = _own_figures(root, report, kind)
    try:
        with fits_its_kind(root):
            runs = read_trajectories(root)
    except RunError as error:
        return found, [*left_out, f"mechanism figures: {error}"]
    if not runs:
        return found, [*left_out, f"mechanism figures: a run of kind {kind!r} holds no training run"]
    wanted = [m for m in MECHANISMS if m.name not in _DRAWN_BY_COMMAND.get(kind, ())]
    draw = [*(partial(mechanism_figure, mechanism, runs) for mechanism in wanted), partial(corners_figure, runs)]
    for drawn in (_drawn(root, one) for one in draw):
        if isinstance(drawn, str):
            left_out.append(drawn)
        else:
            found.append(drawn)
    return found, left_out


def _drawn(root: Path, draw: Callable[[], Drawn | str]) -> Drawn | str:
    try:
        with fits_its_kind(root):
            return draw()
    except RunError as error:
        return str(error)


def _own_figures(root: Path, report: Report | str, kind: str) -> tuple[list[Drawn], list[str]]:
    words = report
    if isinstance(report, Report):
        try:
            with fits_its_kind(root):
                return list(report.figures()), []
        except RunError as error:
            words = str(error)
    return [], [f"the figure of the {kind} command: {words}"]
