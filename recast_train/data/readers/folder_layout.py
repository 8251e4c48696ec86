"""Which files of a folder are which split, told by their names."""

import glob
import re
from pathlib import Path

from recast_train.data.data_error import DataError
from recast_train.data.interactions import Split

INDEX = ".index.json"
_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def split_files(path: Path, suffix: str, prefix: str = "") -> dict[Split, list[Path]]:
    """Files of a split, by a word (train; valid, validation, val, dev; test) in a file's name or else its folder's.

    A path that is itself a file is its split alone, train where neither it nor its folder names one. `prefix` begins the files'
    names. Raises DataError for a folder without such files, and for one whose name, and whose folder's, tell no split or two.
    """
    if path.is_file():
        return {_split_of(path.stem) or _split_of(path.parent.name) or "train": [path]}
    found: dict[Split, list[Path]] = {}
    for file in sorted(file for file in path.rglob(f"*{suffix}") if file.name.startswith(prefix)):
        names = (file.stem, *reversed(file.relative_to(path).parts[:-1]))
        told: list[Split] = [split for split in map(_split_of, names) if split is not None]
        if not told:
            raise DataError(f"{file}: its name tells no split, or two; put one of {', '.join(_NAMES)} in it, or move it away")
        found.setdefault(told[0], []).append(file)
    if not found:
        raise DataError(f"{path}: no {prefix}*{suffix} file there; give the folder or file of the data")
    return found


def index_file(path: Path) -> Path:
    """The one index of a path: itself, or the `*.index.json` below a folder; for a CSV file the one beside it, or else in a
    folder beside its own, and of several the one whose name begins the file's.
    """
    if path.name.endswith(INDEX):
        return path
    if path.is_dir():
        found, mend = sorted(path.rglob(f"*{INDEX}")), "give the path of one of them"
    else:
        found, mend = sorted(path.parent.glob(f"*{INDEX}")) or sorted(path.parent.parent.glob(f"*/*{INDEX}")), "leave one"
        own = [file for file in found if path.name.startswith(file.name.removesuffix(INDEX))]
        found = own if len(found) > 1 else found
    if len(found) != 1:
        names = f" ({found[0]} and {found[1]}); {mend}" if found else ""
        raise DataError(f"{path}: {len(found)} files *{INDEX} belong to it{names}; there must be one index of its items")
    return found[0]


def csv_files(path: Path) -> dict[Split, list[Path]]:
    """MiniOneRec's CSV files of a path; of an index those that begin with its name, beside it or beside its folder."""
    if not path.name.endswith(INDEX):
        return split_files(path, ".csv")
    name = path.name.removesuffix(INDEX)
    beside = any(path.parent.rglob(f"{glob.escape(name)}*.csv"))
    return split_files(path.parent if beside else path.parent.parent, ".csv", name)


def _split_of(name: str) -> Split | None:
    told: list[Split] = [split for word, split in _NAMES.items() if word in re.split(r"[^a-z]+", name.lower())]
    return told[0] if len(set(told)) == 1 else None
