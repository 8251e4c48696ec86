"""The keys of a recipe's data: which format, from where, and how it is cut."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveInt

from recast_sim.configio import Checked
from recast_sim.field_types import Seed
from recast_train.data.data_error import DataError
from recast_train.data.readers.column_names import TableColumns
from recast_train.data.splits import SplitConfig

Format = Literal["ml-100k", "yoochoose-100k", "atomic", "sequences", "minionerec", "openonerec", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)
FETCHED: tuple[Format, ...] = ("ml-100k", "yoochoose-100k")  # by name, into the cache
TITLED = ("atomic", "sequences", "table", "minionerec")  # take titles from a table of their own
NextItems = Annotated[int, Field(ge=1, le=100)]
Cores = Annotated[
    tuple[PositiveInt, ...],
    Field(min_length=1, max_length=2),
    BeforeValidator(lambda value: (value,) if isinstance(value, int) else value),  # `core = 5` in a recipe
]
PROMPT_FORMATS = ("minionerec", "openonerec")  # they come as prompts, split and with SIDs


@dataclass(frozen=True)
class DataConfig(Checked, error=DataError):
    """Where the data comes from.

    Attributes:
        format: "ml-100k" and "yoochoose-100k" are fetched; "atomic" is a RecBole `.inter` file; "sequences" has one user a
            line; "minionerec" is a folder with an index and a CSV a split; "openonerec" is a folder of parquet files; "table"
            is parquet or text.
        path: the file or folder, for all formats but those that are fetched.
        wheel: the recbole wheel, for machines without pip or network.
        columns: names of the columns of an atomic file, a table, and the table of titles.
        titles: a table of item and title: RecBole's .item, text with a header, .parquet, or MiniOneRec's .item.json.
        skip_bad: leave out rows of openonerec that cannot be read, and say how many and where.
        core: users and items with fewer interactions are dropped until none is left; one number for both, or the users' and
            then the items'. The formats that come as prompts are taken as they are.
        split: which items are train, validation and test; the formats that come as prompts are split already.
        max_history: items before the target that a model sees.
        train_targets: how many of the next items are a train prompt's targets, and so what a reward is on. Supervised windows
            have the next item whatever it is.
        test_targets: the same of validation and test prompts.
        held_back: share of the users whose train items no supervision, semantic ID or reference sees: `rl.prompts` "held_back".
        seed: of the order of ties in time; apart from the run's seed, so that all seeds are tested on the same prompts.
    """

    format: Format = "ml-100k"
    path: Path | None = None
    wheel: Path | None = None
    titles: Path | None = None
    skip_bad: bool = False
    columns: TableColumns = field(default_factory=TableColumns)
    core: Cores = (5,)
    split: SplitConfig = field(default_factory=SplitConfig)
    max_history: PositiveInt = 20
    train_targets: NextItems = 1
    test_targets: NextItems = 1
    held_back: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_targets", "test_targets", "held_back"):
            value = getattr(self, name)
            if self.format in PROMPT_FORMATS and value != getattr(DataConfig, name):
                raise DataError(
                    f"DataConfig.{name}: {value} has no effect on {self.format!r}, which comes as prompts; leave it out"
                )
        if self.format in FETCHED and self.path is not None:
            others = ", ".join(name for name in FORMATS if name not in FETCHED)
            raise DataError(f"DataConfig.path: {self.format!r} is fetched, so {str(self.path)!r} needs a format of {others}")
        if self.format not in FETCHED and self.path is None:
            raise DataError(f"DataConfig.path: format {self.format!r} needs the path of its file or folder; give one")
        if self.columns != TableColumns() and self.format not in ("atomic", "table") and self.titles is None:
            raise DataError(f"DataConfig.columns: {self.columns} have no effect on {self.format!r}; leave them out")
        if self.titles is not None and self.format not in TITLED:
            raise DataError(
                f"DataConfig.titles: {self.titles} has no effect on {self.format!r}, with titles of its own or none"
            )
        if self.skip_bad and self.format != "openonerec":
            raise DataError(f"DataConfig.skip_bad: true has no effect on {self.format!r}, only on 'openonerec'; leave it out")
