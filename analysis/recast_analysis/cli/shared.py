"""What the commands of `recast-report` share."""

import json
from pathlib import Path

from recast_analysis.reports.report import Report
from recast_analysis.terminal import print_report
from recast_sim.runs import RunError


def named(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if not runs:
        raise RunError("runs: none given; name at least one run folder")
    return runs


def print_or_dump(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.summary, allow_nan=False))
    else:
        print_report(report)
