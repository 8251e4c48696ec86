"""What `recast-report conform` says of a target: one table, and the smallest batch of each fault below it."""

import textwrap
from dataclasses import asdict
from typing import Any

from recast_analysis.conform.judge import Remark, Verdict
from recast_analysis.drawing.words import count_words
from recast_analysis.reports.report import Report, Table

WIDTH = 100
_SAYS = 62  # letters of the last column
_ORDER = ("fault", "choice", "agrees", "not run")


def report(verdict: Verdict) -> Report:
    """The verdict as a report that fits a terminal of 100 columns."""
    target, faults = verdict.target, verdict.faults
    findings = sorted(verdict.findings, key=lambda finding: _ORDER.index(finding.verdict))
    explained = f"{verdict.explained} of {verdict.asked} golden batches explained by the choices below"
    heading = f"{target.name} as {verdict.method}: {explained}, {count_words(len(faults), 'fault')}"
    rows = [(finding.what, finding.verdict, textwrap.shorten(finding.says, _SAYS, placeholder=" ...")) for finding in findings]
    table = Table("", ("what", "verdict", "in words"), rows, words=("what", "verdict", "in words"))
    smallest = [_minimal(number, fault) for number, fault in enumerate(faults, start=1)]
    return Report(summary(verdict), [_wrapped(heading), *map(_wrapped, target.notes), table, *smallest])


def summary(verdict: Verdict) -> dict[str, Any]:
    """The verdict, JSON-ready."""
    return {
        "target": verdict.target.name,
        "kind": verdict.target.kind,
        "method": verdict.method,
        "setting": verdict.setting,
        "explained": verdict.explained,
        "asked": verdict.asked,
        "faults": len(verdict.faults),
        "findings": [asdict(finding) for finding in verdict.findings],
        "notes": list(verdict.target.notes),
    }


def _minimal(number: int, fault: Remark) -> str:
    parts = [f"{name} {value}" for name, value in fault.minimal.items()]
    return _wrapped(f"fault {number}, {fault.what}: {fault.says}" + (f"; smallest: {'; '.join(parts)}" if parts else ""))


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent="    "))
