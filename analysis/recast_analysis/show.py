"""`recast-report show`: one table of any run folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_analysis.drawing.style import REGIME_COLOURS
from recast_analysis.reports.report import Report, Table
from recast_sim.runs import Run, RunError, read_run
from recast_sim.runs.reader import fits_its_kind

_METRICS = (
    *("pass_at_1_greedy", "recall_at_k", "calibrated_log_likelihood", "pass_at_1_sampled", "sharpened", "learned"),
    *("hr@10", "ndcg@10", "validation_nll"),
)
_LAST = 10


def run_summary(run: Run) -> dict[str, Any]:
    """What a run is and where it ended: identity, status, cost, last evaluation, mean regime of its last ten steps.

    Raises:
        RunError: its config or its rows are not those of a run.
    """
    with fits_its_kind(run.path):
        return _summary(run)


def _summary(run: Run) -> dict[str, Any]:
    training = run.manifest["config"].get("training", {})
    last_step = run.steps.tail(1).to_dicts()[0] if len(run.steps) else {}
    last_eval = run.evals.tail(1).to_dicts()[0] if len(run.evals) else {}
    regime = {f"before_{name}" for name in REGIME_COLOURS} & set(run.steps.columns)
    return {
        "run": run.path.name,
        "path": str(run.path),
        "kind": run.manifest["kind"],
        "constructor": training.get("constructor"),
        "seed": run.manifest["seed"],
        "status": run.status,
        **{name: last_step.get(name) for name in ("step", "rollouts", "actor_rows", "optimiser_steps")},
        **{name: last_eval[name] for name in _METRICS if name in last_eval},
        **{name.removeprefix("before_"): run.steps[name].tail(_LAST).mean() for name in sorted(regime)},
    }


def readable_runs(paths: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Summaries of the runs that can be read, and why the others cannot.

    Raises:
        RunError: none of them can.
    """
    found, faults = [], []
    for path in paths:
        try:
            found.append(run_summary(read_run(path)))
        except RunError as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    return found, [f"not readable: {error}" for error in faults]


def one_run(root: Path) -> Report:
    """A run that has no report of its own: what it is and where it ended."""
    summary = run_summary(read_run(root))
    return Report(summary, [runs_table([summary])])


def runs_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """A row a run; columns that no run fills are left out."""
    filled = dict.fromkeys(key for row in summaries for key, value in row.items() if value is not None)
    keys = [key for key in filled if key != "path"]
    rows = [[_cell(row.get(key)) for key in keys] for row in summaries]
    return Table("", keys, rows, words=("run", "kind", "constructor", "status"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
