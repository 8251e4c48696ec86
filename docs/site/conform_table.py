"""The table of docs/conform.md: every target of a library under the conformance kit, a row each.

    python -m docs.site.conform_table recast trl verl

prints it as Markdown. A library must be installed; docs/conform.md says which rows it holds.
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from recast_analysis.conform.judge import Remark, Verdict, judge
from recast_analysis.conform.judged_target import library_targets, load_target

HEAD = "| target | as | explained | choices | faults |\n|---|---|---|---|---|"
ALSO = (("trl:grpo", "two_grpo"), ("verl:grpo", "two_grpo"))  # a target under a second formula


def held(library: str) -> list[tuple[str, str | None]]:
    """Targets of a library, and the formula where it is not their own."""
    own: list[tuple[str, str | None]] = [(name, None) for name in library_targets(library)]
    return own + [pair for pair in ALSO if pair[0].startswith(f"{library}:")]


def row(target: str, method: str | None = None) -> str:
    verdict = judge(load_target(target), method)
    explained = f"{verdict.explained} of {verdict.asked}"
    cells = (
        target,
        verdict.method,
        explained,
        "; ".join(_choices(verdict)) or "agrees",
        "; ".join(map(_fault, verdict.faults)),
    )
    return "| " + " | ".join(cells) + " |"


def _choices(verdict: Verdict) -> Iterator[str]:
    for finding in verdict.findings:
        if finding.verdict == "choice":
            said = "refused" if finding.says.startswith("refused") else finding.says.partition(" (reference")[0]
            yield f"{finding.what}: {said}"


def _fault(fault: Remark) -> str:
    told = ("got", "raised", "expected", "dtype")
    given = [f"{name} {_short(value, 'None')}" for name, value in fault.minimal.items() if name not in told]
    if not given:
        return f"{fault.what}: {fault.says}"
    dtype = f"{fault.minimal['dtype']} " if "dtype" in fault.minimal else ""
    raised = fault.minimal.get("raised", "").partition(":")[0]
    gives = f"raises {raised}" if raised else f"gives {_short(fault.minimal['got'])}, not {_short(fault.minimal['expected'])}"
    return f"{fault.what}: {dtype}{', '.join(given)} {gives}"


def _short(values: Any, none: str = "not finite") -> str:
    """Numbers and texts of a list, equal neighbours once with their count."""
    runs = [(_said(value, none), len(list(run))) for value, run in groupby(values)]
    return "[" + ", ".join(said if count == 1 else f"{said} x {count}" for said, count in runs) + "]"


def _said(value: Any, none: str) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return none if value is None else f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)


def main(libraries: list[str]) -> None:
    print(HEAD)
    for library in libraries:
        for target, method in held(library):
            print(row(target, method), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
