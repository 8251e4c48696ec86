"""Which files of a folder are which split, and which format a path holds, told by names and by content."""

import csv
import re
from pathlib import Path

import polars as pl

from recast_sim.runs.table_files import file_faults, is_parquet, text_lines
from recast_train.data.data_config import FORMATS, Format
from recast_train.data.data_error import DataError
from recast_train.data.interactions import Split
from recast_train.data.readers.minionerec import COLUMNS

_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def split_files(path: Path, suffix: str) -> dict[Split, list[Path]]:
    """Files of a split, by a word (train; valid, validation, val, dev; test) in a file's name or else its folder's.

    A path that is itself a file is its split alone, train where it names none. Raises DataError for a folder without such
    files, and for one whose name, and whose folder's, tell no split or two.
    """
    if path.is_file():
        return {_split_of(path.stem) or "train": [path]}
    found: dict[Split, list[Path]] = {}
    for file in sorted(path.rglob(f"*{suffix}")):
        names = (file.stem, *reversed(file.relative_to(path).parts[:-1]))
        told: list[Split] = [split for split in map(_split_of, names) if split is not None]
        if not told:
            raise DataError(f"{file}: its name tells no split, or two; put one of {', '.join(_NAMES)} in it, or move it away")
        found.setdefault(told[0], []).append(file)
    if not found:
        raise DataError(f"{path}: no {suffix} file there; give the folder or file of the data")
    return found


def index_file(path: Path) -> Path:
    """The one `*.index.json` below a folder; for a CSV file the one beside it, or else in a folder beside its own."""
    if path.is_dir():
        found = sorted(path.rglob("*.index.json"))
    else:
        found = sorted(path.parent.glob("*.index.json")) or sorted(path.parent.parent.glob("*/*.index.json"))
    if len(found) != 1:
        names = f" ({found[0]} and {found[1]})" if found else ""
        raise DataError(f"{path}: {len(found)} files *.index.json belong to it{names}; there must be one index of its items")
    return found[0]


def recognise(path: Path) -> Format:
    """The format of a file or folder, by its content. Raises DataError, with what was looked for, where it is none of them."""
    if path.is_dir():
        if any(path.rglob("*.index.json")):
            return "minionerec"
        if any(path.rglob("*.parquet")):
            return "openonerec"
        raise DataError(f"{path}: no *.index.json and no *.parquet in the folder; give a file, or --format of {_choices()}")
    try:
        if is_parquet(path):
            with file_faults(path, DataError):
                return "openonerec" if "messages" in pl.scan_parquet(path, glob=False).collect_schema() else "table"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file or folder that is there") from error
    _, line = next(text_lines(path, DataError), (0, ""))
    first = line.rstrip("\r\n")
    if "user_id:token" in first.split("\t"):
        return "atomic"
    if "," in first:
        return "minionerec" if set(COLUMNS) <= set(next(csv.reader([first]))) else "table"
    if len(first.split()) > 1:
        return "sequences"
    raise DataError(f"{path}: line 1: {first[:80]!r} begins no known format; give --format of {_choices()}")


def _split_of(name: str) -> Split | None:
    told: list[Split] = [split for word, split in _NAMES.items() if word in re.split(r"[^a-z]+", name.lower())]
    return told[0] if len(set(told)) == 1 else None


def _choices() -> str:
    return ", ".join(FORMATS[1:])
