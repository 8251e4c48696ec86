"""Any format as one `Source`: items, given semantic IDs where there are any, train sequences, and prompts by split.

Axis letters: I items, L levels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recast_train.data.data_config import PROMPT_FORMATS, DataConfig, Format
from recast_train.data.data_error import DataError
from recast_train.data.interactions import (
    Dataset,
    Dropped,
    Prompts,
    Split,
    build_sequences,
    drop_rare,
    prompts,
    split_by_time,
    without_train,
)
from recast_train.data.ml100k import fetch_ml100k
from recast_train.data.readers.column_names import TableColumns
from recast_train.data.readers.folder_layout import csv_files, index_file, split_files
from recast_train.data.readers.given_sids import GivenSids
from recast_train.data.readers.item_text import read_titles
from recast_train.data.readers.minionerec import read_index, read_minionerec
from recast_train.data.readers.plain_table import read_table
from recast_train.data.readers.prompt_table import PromptTable, to_prompts, windows
from recast_train.data.readers.recbole import read_atomic
from recast_train.data.readers.recif import BadRows, read_openonerec
from recast_train.data.readers.sequences import read_sequences
from recast_train.data.yoochoose import FILE, fetch_yoochoose

NOTHING = Dropped()
_REPEATED = 0.01  # share of the interactions that is worth a word
_ORDER = "no times: each user's rows are taken in the order of the file"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """Data of any format, ready for the trainer.

    Attributes:
        items: ids in sorted (string) order; all item numbers below are places in it.
        users: ids in sorted order; `user_N` of the prompts are places in it.
        titles: aligned to `items`; empty where the format does not title each of them.
        sids: the SIDs that the format gives, aligned to `items`; None where they have to be made.
        dataset: users' sequences in time with their splits; of a format that comes as prompts the train prompts alone, each
            as a sequence of its own (`prompt_table.windows` says what that means for training).
        train, validation, test: prompts; of a format that comes as prompts a split may be empty.
        notes: what a reader wants to be known of how it read the data.
        tied: share of interactions that share user and time with another; None where there are no times.
        dropped: what the cores took.
        held_back: prompts of the users that `dataset` lacks the train items of; None where none were held back.
    """

    format: Format
    items: list[str]
    users: list[str]
    titles: list[str]
    sids: GivenSids | None
    dataset: Dataset
    train: Prompts
    validation: Prompts
    test: Prompts
    tied: float | None = None
    dropped: Dropped = NOTHING
    notes: tuple[str, ...] = ()
    held_back: Prompts | None = None

    @property
    def codes_IL(self) -> NDArray[np.int64] | None:
        """The given SIDs, or None."""
        return None if self.sids is None else self.sids.codes_IL

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Codes of each level of the given SIDs, or None."""
        return None if self.sids is None else self.sids.sizes

    def split(self, name: Split) -> Prompts:
        """The prompts of a split by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def read_source(config: DataConfig) -> Source:
    """Read the data of a recipe. Raises DataError."""
    if config.format in PROMPT_FORMATS:
        return _from_prompts(config)
    data, tied, dropped, notes = read_dataset(config)
    supervised, held = without_train(data, config.held_back, config.seed) if config.held_back else (data, None)
    train = prompts(supervised, "train", config.max_history, targets=config.train_targets)
    held_back = None if held is None else prompts(held, "train", config.max_history, targets=config.train_targets)
    validation = prompts(data, "validation", config.max_history, targets=config.test_targets)
    test = prompts(data, "test", config.max_history, targets=config.test_targets)
    about = (config.format, data.items, data.users, data.titles, None, supervised)
    return Source(*about, train, validation, test, tied, dropped, notes, held_back)


def load_source(config: DataConfig) -> Source:
    """`read_source`, for training: raises DataError for a split without prompts as well."""
    source = read_source(config)
    for split in SPLITS:
        if not len(source.split(split)):
            raise DataError(f"{config.path or config.format}: no {split} prompts; training needs all of {', '.join(SPLITS)}")
    return source


def read_dataset(config: DataConfig) -> tuple[Dataset, float | None, Dropped, tuple[str, ...]]:
    """Users in time of a format that has them, the share of interactions tied in time (None without times), what the cores
    took, and what a reader wants to be known of how it was read.

    Raises DataError, also for a format that comes as prompts.
    """
    frame, titles = _interactions(config)
    frame, dropped = drop_rare(frame, config.core[0], config.core[-1])
    tied, notes = None, ()
    if "timestamp" in frame.columns and frame.height:
        notes = _repeated(frame)
        tied = float(frame.select((pl.len().over("user", "timestamp") > 1).mean()).item())
        frame = build_sequences(frame, config.seed)
    elif config.format != "sequences":
        notes = (_ORDER,)
    return split_by_time(frame, titles, config.split), tied, dropped, notes


def _repeated(frame: pl.DataFrame) -> tuple[str, ...]:
    """A word on rows that say what another says, where there are many: the file may hold a copy of itself."""
    again = frame.height - frame.n_unique(["user", "item", "timestamp"])
    if again < _REPEATED * frame.height:
        return ()
    said = f"{again:,} of {frame.height:,} interactions ({again / frame.height:.1%}) repeat the user, item and time of another"
    return (f"{said}, and count each time; if the file holds a copy of itself, drop it",)


def _interactions(config: DataConfig) -> tuple[pl.DataFrame, dict[str, str] | None]:
    if config.format == "ml-100k":
        folder = fetch_ml100k(wheel=config.wheel)
        return read_atomic(folder / "ml-100k.inter"), read_titles(folder / "ml-100k.item")
    if config.format == "yoochoose-100k":
        return read_table(fetch_yoochoose() / FILE, TableColumns()), None
    path = _path(config)
    titles = None if config.titles is None else read_titles(config.titles, config.columns)
    if config.format == "atomic":
        return read_atomic(path, config.columns), titles
    if config.format == "sequences":
        return read_sequences(path), titles
    if config.format == "table":
        return read_table(path, config.columns), titles
    raise DataError(f"DataConfig.format: {config.format!r} comes as prompts and has no users in time; use read_source")


def _from_prompts(config: DataConfig) -> Source:
    bad = BadRows() if config.skip_bad else None
    tables = _minionerec(_path(config)) if config.format == "minionerec" else _openonerec(_path(config), bad)
    sids = GivenSids.of(tables["train"].codes)
    users = sorted({user for table in tables.values() for user in table.users})
    number = {user: place for place, user in enumerate(users)}
    parts = [to_prompts(tables[split], sids.items, number, config.max_history) for split in SPLITS]
    known = tables["train"].titles | (read_titles(config.titles, config.columns) if config.titles else {})
    untitled = [item for item in sids.items if item not in known]
    titles = [] if untitled else [known[item] for item in sids.items]
    dataset = windows(parts[0], sids.items, users, titles)
    notes = () if bad is None else (bad.words(),)
    if known and untitled:
        notes += (f"no titles are used: {len(untitled):,} of {len(sids.items):,} items have none, {untitled[0]!r} the first",)
    return Source(config.format, sids.items, users, titles, sids, dataset, parts[0], parts[1], parts[2], notes=notes)


def _minionerec(path: Path) -> dict[Split, PromptTable]:
    index = read_index(index_file(path))
    files = csv_files(path)
    for split, found in files.items():
        if len(found) > 1:
            raise DataError(f"{path}: {len(found)} files of the {split} split, {found[0]} and {found[1]} among them; leave one")
    titles: dict[str, str] = {}
    tables: dict[Split, PromptTable] = {split: PromptTable(index, titles) for split in SPLITS}
    for split, found in files.items():
        tables[split] = read_minionerec(found[0], index, titles)
    return tables


def _openonerec(path: Path, bad: BadRows | None) -> dict[Split, PromptTable]:
    files = split_files(path, ".parquet")
    codes: dict[str, tuple[int, ...]] = {}
    tables: dict[Split, PromptTable] = {split: PromptTable(codes) for split in SPLITS}
    for split, found in files.items():
        for file in found:
            read_openonerec(file, tables[split], bad)
    if bad is not None and not any(map(len, tables.values())):
        raise DataError(f"{path}: no row can be read; {bad.words()}")
    return tables


def _path(config: DataConfig) -> Path:
    if config.path is None or not config.path.exists():
        raise DataError(f"{config.path}: there is no such file or folder; mend data.path")
    return config.path
