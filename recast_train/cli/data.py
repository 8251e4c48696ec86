"""`recast-train data describe`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from recast_sim.commandline import Flag, Positional, Printing
from recast_sim.field_types import Seed
from recast_train.data import (
    FETCHED,
    PROMPT_FORMATS,
    Cores,
    DataConfig,
    Format,
    SplitConfig,
    TableColumns,
    read_source,
    recognise,
)


@dataclass(frozen=True)
class Data(Printing):
    """Describe a data set: sizes, ties, splits, popularity, what references reach.

    Attributes:
        action: what to do with it.
        path: the file or folder, or the name of a data set that is fetched where it is not in the cache; default ml-100k.
        format: of the path; recognised by its content where it is not given.
        titles: a table of item and title.
        skip_bad: leave out rows of openonerec that cannot be read, and say how many and where.
        columns: names of the columns, or their places from 1 where there is no header.
        core: users and items with fewer interactions are dropped; one number for both, or the users' and then the items'. The
            formats that come as prompts are taken as they are.
        split: which items are train, validation and test.
        prompts: test prompts, at most, on which the references are measured.
        seed: of the split and of the choice of those prompts.
    """

    action: Positional[Literal["describe"]] = "describe"
    path: Positional[Path | None] = None
    format: Format | None = None
    titles: Path | None = None
    skip_bad: Flag = False
    columns: TableColumns = field(default_factory=TableColumns)
    core: Cores = (5,)
    split: SplitConfig = field(default_factory=SplitConfig)
    prompts: PositiveInt = 2000
    seed: Seed = 0


def data(command: Data) -> None:
    from recast_analysis.reports.real.data_set import report
    from recast_analysis.terminal import finish
    from recast_train.data.describe import describe

    kind: Format = command.format or "ml-100k"
    path, reason = command.path, "as given" if command.format else "fetched"
    if path is not None and command.format is None:
        by_name: Format | None = next((name for name in FETCHED if Path(name) == path and not path.exists()), None)
        if by_name is None:
            kind, reason = recognise(path, command.columns)
        else:
            path, kind = None, by_name
    kept = {name: getattr(command, name) for name in ("titles", "skip_bad", "columns", "core", "split", "seed")}
    config = DataConfig(kind, path, **kept)
    split = "given" if kind in PROMPT_FORMATS else command.split.rule
    about = {"path": str(path or kind), "recognised": reason, "split": split}
    found = about | describe(read_source(config), command.prompts, command.seed)
    given = f" --data.format {kind}" + (f" --data.path {path}" if path else "")
    finish(command, found, report(found), f"recast-train tokenize{given}")
