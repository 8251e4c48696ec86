"""`recast-report audit`: rollouts that another run dumped."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from recast_analysis.audit.audit_report import report as audit_report
from recast_analysis.audit.audit_report import write_audit
from recast_analysis.audit.reading.dump_groups import read_groups
from recast_analysis.cli.shared import Reporting
from recast_analysis.terminal import finish
from recast_sim.commandline import Paths, progress


@dataclass(frozen=True)
class Audit(Reporting):
    """Audit rollouts that another run dumped: verl, TRL, or a plain table.

    Attributes:
        dumps: files, or folders that hold nothing else; told apart by content.
        hit_above: a reward above it is a hit.
        columns: what a dump's own names do not say, as ROLE=COLUMN: step, group, prompt, completion, reward (a+b adds two,
            unless one is called so), target, prompt_tokens, response_tokens.
        items: file of the SIDs that exist: a JSON object of item to SID, or an SID a line.
    """

    dumps: Paths = ()
    hit_above: float = 0.5
    columns: tuple[str, ...] = ()
    items: Path | None = None


def audit(command: Audit) -> None:
    with progress() as report:
        groups = read_groups(command.dumps, command.hit_above, command.columns, command.items, report)
    found = audit_report(groups)
    if command.out is not None:
        write_audit(command.out, found.summary, groups.table)
        print("figure:", *found.save_figures(command.out), file=sys.stderr)
    finish(command, found.summary, found, _then(command))


def _then(command: Audit) -> str:
    """The plan of the next run from the same rollouts."""
    columns = ["--columns", *command.columns] if command.columns else []
    above = [] if command.hit_above == Audit.hit_above else ["--hit-above", f"{command.hit_above:g}"]
    return shlex.join(["recast-report", "plan", *map(str, command.dumps), *columns, *above])
