"""`recast-report learned`: did RL do anything? Two models' scores on the same prompts."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt

from recast_analysis.cli.shared import Reporting
from recast_analysis.given_columns import given_columns
from recast_analysis.learned.learned_error import LearnedError
from recast_analysis.learned.learned_report import read_side, write_learned
from recast_analysis.learned.learned_report import report as learned_report
from recast_analysis.learned.score_roles import ROLES
from recast_analysis.terminal import finish
from recast_sim.commandline import Flag, Positional
from recast_sim.field_types import Seed


@dataclass(frozen=True)
class Learned(Reporting):
    """Did RL do anything? Scores of a model before and after training, on the same prompts.

    Attributes:
        before: BEFORE training: a score file (JSON lines, JSON array, parquet, CSV; a row a prompt), or a folder RUN/sft of
            recast-train run.
        after: AFTER it: the same, or RUN/rl/METHOD.
        supervised: the same of a model with continued supervision of equal cost.
        columns: what the files' own names do not say, as ROLE=COLUMN: prompt, user, rank, ranked, target, scores, logprob,
            greedy, entropy, level_scores, level_target; prompt=A+B and logprob=A+B take several columns.
        beam: how many items the lists hold, where only ranks are given; deeper ranks do not count.
        by_row: match rows by their place instead of an id.
        seed: of the split of users into halves.
    """

    before: Positional[Path | None] = None
    after: Positional[Path | None] = None
    supervised: Path | None = None
    columns: tuple[str, ...] = ()
    beam: PositiveInt | None = None
    by_row: Flag = False
    seed: Seed = 0


def learned(command: Learned) -> None:
    if command.before is None or command.after is None:
        name = "before" if command.before is None else "after"
        raise LearnedError(f"{name}: missing; give two score files, or folders such as RUN/sft and RUN/rl/grpo")
    given = given_columns(command.columns, ROLES, LearnedError)
    before = read_side(command.before, given, command.beam, command.by_row)
    after = read_side(command.after, given, command.beam, command.by_row, command.before)
    third = command.supervised and read_side(command.supervised, given, command.beam, command.by_row, command.before)
    found = learned_report(before, after, third, command.by_row, command.seed)
    if command.out is not None:
        write_learned(command.out, found.summary)
        print("figure:", *found.save_figures(command.out), file=sys.stderr)
    finish(command, found.summary, found)
