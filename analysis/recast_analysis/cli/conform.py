"""`recast-report conform`: anybody's advantages or loss against golden vectors."""

import sys
from dataclasses import dataclass

from recast_analysis.cli.shared import Reporting
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.conform_report import report as conform_report
from recast_analysis.conform.judge import judge
from recast_analysis.conform.judged_target import GIVEN, load_target
from recast_analysis.terminal import finish
from recast_sim.commandline import Flag, Positional
from recast_sim.field_types import Seed
from recast_sim.runs.atomic import write_json


@dataclass(frozen=True)
class Conform(Reporting):
    """Hold anybody's advantages or loss against golden vectors: choices and faults.

    Ends with status 1 where a fault is found.

    Attributes:
        target: module:function or file.py:function of f(rewards, group_ids), or recast:NAME, trl:NAME, verl:NAME.
        method: the formula that it should be; default the one that fits best.
        loss: the function is a loss, f(new, old, reference, advantages, mask).
        functions: it also takes a table of rewards, a column a reward function.
        seed: of the random batches that follow the golden vectors.
    """

    target: Positional[str] = ""
    method: str | None = None
    loss: Flag = False
    functions: Flag = False
    seed: Seed = 0


def conform(command: Conform) -> None:
    if not command.target:
        raise ConformError(f"target: missing{GIVEN}")
    verdict = judge(load_target(command.target, command.loss, command.functions), command.method, command.seed)
    found = conform_report(verdict)
    if command.out is not None:
        command.out.mkdir(parents=True, exist_ok=True)
        write_json(command.out / "conform.json", found.summary)
    finish(command, found.summary, found)
    if verdict.faults:
        sys.exit(1)
