"""The keys of a recipe's data: which format, from where, and how it is cut."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pydantic import PositiveInt

from recast_sim.configio import Checked
from recast_sim.field_types import Seed
from recast_train.data.data_error import DataError
from recast_train.data.readers.plain_table import TableColumns

Format = Literal["ml-100k", "atomic", "sequences", "minionerec", "openonerec", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROMPT_FORMATS = ("minionerec", "openonerec")  # they come as prompts, split and with SIDs


@dataclass(frozen=True)
class DataConfig(Checked, error=DataError):
    """Where the data comes from.

    Attributes:
        format: "ml-100k" is fetched; "atomic" is a RecBole `.inter` file; "sequences" has one user a line; "minionerec" is
            a folder with an index and a CSV a split; "openonerec" is a folder of parquet files; "table" is parquet or CSV.
        path: the file or folder, for all formats but "ml-100k".
        wheel: the recbole wheel, for machines without pip or network.
        columns: names of a table's columns.
        core: users and items with fewer interactions are dropped; the formats that come as prompts are taken as they are.
        max_history: items before the target that a model sees.
        seed: of the order of ties in time; apart from the run's seed, so that all seeds are tested on the same prompts.
    """

    format: Format = "ml-100k"
    path: Path | None = None
    wheel: Path | None = None
    columns: TableColumns = field(default_factory=TableColumns)
    core: PositiveInt = 5
    max_history: PositiveInt = 20
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format == "ml-100k" and self.path is not None:
            others = ", ".join(FORMATS[1:])
            raise DataError(f"DataConfig.path: 'ml-100k' is fetched, so {str(self.path)!r} needs a format of {others}")
        if self.format != "ml-100k" and self.path is None:
            raise DataError(f"DataConfig.path: format {self.format!r} needs the path of its file or folder; give one")
