"""The table of semantic IDs: one row of codes per item, its report, and its files.

sids.safetensors holds the codes; sids.json the format's version, the sizes, the item ids, the report, and the sha256 of all.
Axis letters: I items, L levels.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recast_sim.bounded import TENSOR_BYTES, read_bounded, read_json_file
from recast_sim.runs import atomic_file, write_text
from recast_train.semantic_id.sid_error import SemanticIdError

VERSION = 2  # of the two files
CODES_FILE, HEADER_FILE = "sids.safetensors", "sids.json"
_MOST = 2**31  # codes of a level
_UNREADABLE = (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class SidTable:
    """One semantic ID per item: `codes_IL` (int64, level l in 0 .. sizes[l] - 1); items may share one.

    `report` says how good the table is; `tokenize_items` says what it holds. `items` are the ids of the rows, each once, or
    none where nobody knows them. Raises SemanticIdError for codes, sizes or ids that break this, and for a report that is not a
    dict of what JSON can hold.
    """

    codes_IL: NDArray[np.int64]
    sizes: tuple[int, ...]
    report: dict[str, Any] = field(default_factory=dict)
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        codes = self.codes_IL
        if codes.ndim != 2 or codes.dtype != np.int64 or codes.shape[1] != len(self.sizes) or not codes.size:
            found = f"{codes.dtype} {codes.shape}"
            raise SemanticIdError(f"codes: {found} for {len(self.sizes)} levels; give int64 (items, levels)")
        if not all(type(size) is int and 1 <= size <= _MOST for size in self.sizes):
            raise SemanticIdError(f"sizes: {self.sizes} are not whole numbers in 1 .. {_MOST}; tokenize again")
        if (codes < 0).any() or (codes >= np.array(self.sizes)).any():
            found = f"{codes.min(axis=0)} to {codes.max(axis=0)}"
            raise SemanticIdError(f"codes: {found} are not within sizes {self.sizes}; tokenize again")
        named = len(set(self.items)) == len(self.items) and all(isinstance(item, str) for item in self.items)
        if not named or len(self.items) not in (0, len(codes)):
            raise SemanticIdError(f"items: {len(self.items)} ids, or one twice, for {len(codes)} rows; tokenize again")
        if not isinstance(self.report, dict):
            raise SemanticIdError(f"report: {type(self.report).__name__} is not a dict; tokenize again")
        try:
            _ = self.hash
        except (TypeError, ValueError) as error:
            raise SemanticIdError(f"report: not JSON ({error}); give finite numbers, strings, lists and dicts") from error

    @property
    def hash(self) -> str:
        """sha256 of codes, sizes, item ids and report, in hexadecimal: equal tables have equal hashes on every machine."""
        header = json.dumps([self.codes_IL.shape, self.sizes, self.report, self.items], sort_keys=True, allow_nan=False)
        return hashlib.sha256(header.encode() + self.codes_IL.astype("<i8").tobytes()).hexdigest()


def holds_table(folder: Path) -> bool:
    """Whether a folder has either of the two files."""
    return any((folder / name).exists() for name in (CODES_FILE, HEADER_FILE))


def save_sids(table: SidTable, folder: Path) -> None:
    """Write the two files into a folder, the header last: a table that was cut off in between is not read as one."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {
        "version": VERSION,
        "sizes": list(table.sizes),
        "report": table.report,
        "sha256": table.hash,
        "items": table.items,
    }
    with atomic_file(folder / CODES_FILE) as temporary:
        temporary.write_bytes(save({"codes_IL": np.ascontiguousarray(table.codes_IL)}))
    write_text(folder / HEADER_FILE, json.dumps(header, indent=1, allow_nan=False))


def load_sids(folder: Path) -> SidTable:
    """The table of `save_sids`. Raises SemanticIdError for a missing, cut off or edited file, or another version."""
    try:
        header = read_json_file(folder / HEADER_FILE, SemanticIdError)
        version = header.get("version")
        codes = load(read_bounded(folder / CODES_FILE, TENSOR_BYTES, SemanticIdError))
    except _UNREADABLE as error:
        raise _unreadable(folder, error) from error
    if version != VERSION:
        raise SemanticIdError(f"{folder}: {HEADER_FILE} has version {version!r}, this code reads {VERSION}; tokenize again")
    try:
        sizes, items, expected = tuple(header["sizes"]), tuple(header["items"]), header["sha256"]
        table = SidTable(codes["codes_IL"], sizes, header["report"], items)
    except _UNREADABLE as error:
        raise _unreadable(folder, error) from error
    if (found := table.hash) != expected:
        raise SemanticIdError(f"{folder}: content has sha256 {found}, {HEADER_FILE} says {expected}; tokenize again")
    return table


def _unreadable(folder: Path, error: Exception) -> SemanticIdError:
    return SemanticIdError(f"{folder}: not a readable table of semantic IDs ({error}); tokenize again")
