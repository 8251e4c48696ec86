"""What the commands of `recast-report` share."""

from pathlib import Path

from recast_sim.runs import RunError


def named(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if not runs:
        raise RunError("runs: none given; name at least one run folder")
    return runs
