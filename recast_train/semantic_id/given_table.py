"""Tables of semantic IDs that come with the data or in a file: read, laid on the data's items, told apart on request.

Axis letters: I items of the data, L levels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recast_sim.runs.table_files import file_faults, scan_parquet
from recast_train.data import DataError, GivenSids, read_index
from recast_train.data.readers.given_sids import Codes, parse_sid
from recast_train.semantic_id.collisions import Ints, cluster_sizes, number_shared
from recast_train.semantic_id.sid_config import Collisions
from recast_train.semantic_id.sid_error import SemanticIdError, require
from recast_train.semantic_id.sid_quality import usage
from recast_train.semantic_id.sid_table import CODES_FILE, HEADER_FILE, SidTable, load_sids

ITEM_COLUMNS = ("item", "item_id")
SID_COLUMNS = ("codes", "sid", "semantic_id")


def given_table(sids: GivenSids, collisions: Collisions | None) -> SidTable:
    """The table of SIDs that the data brings. Raises SemanticIdError for collisions = "nearest": there are no embeddings."""
    mend = "needs embeddings, and the data gives its own semantic IDs; use 'keep' or 'level'"
    require(collisions != "nearest", "SidConfig.collisions", "'nearest'", mend)
    return _table(sids.items, sids.codes_IL, sids.sizes, collisions or "keep")


def table_of_file(path: Path, items: Sequence[str], collisions: Collisions) -> SidTable:
    """The codes of the data's items from a file of `read_sid_file`. Items of the file that the data does not have are left out;
    their codes still count for the sizes of the levels.

    Raises:
        SemanticIdError: see read_sid_file; an item of the data that the file lacks.
    """
    codes, sizes = read_sid_file(path)
    missing = [item for item in items if item not in codes]
    if missing:
        ids = ", ".join(map(repr, list(codes)[:3]))
        found = f"no semantic ID for item {missing[0]!r} ({len(missing)} of {len(items)} in all); its ids are {ids}, ..."
        raise SemanticIdError(f"{path}: {found}; give the table of this data")
    table = _table(items, np.array([codes[item] for item in items], dtype=np.int64), sizes, collisions)
    table.report["left_out"] = len(codes) - len(items)
    return table


def read_sid_file(path: Path) -> tuple[dict[str, Codes], tuple[int, ...]]:
    """Item id to codes, and the codes of each level, from a table of the user's.

    - `.json`: an object of item ids; a value is a list of tokens (`["<a_1>", "<b_2>"]`, MiniOneRec's and LETTER's index.json),
      a list of whole numbers from 0, or a text of tokens.
    - `.parquet`: a column `item` (or item_id; text or whole numbers) and one `codes` (or sid, semantic_id) of such values.
    - a folder of `recast-train tokenize`, or one of its two files.

    Raises SemanticIdError with file, item or row, value and mend.
    """
    if not path.exists():
        raise SemanticIdError(f"{path}: there is no such file or folder; mend sids.path")
    folder = path.parent if path.name in (CODES_FILE, HEADER_FILE) else path
    if folder.is_dir():
        table = load_sids(folder)
        require(bool(table.items), str(folder), f"{len(table.codes_IL)} rows", "have no item ids; tokenize again")
        return dict(zip(table.items, map(tuple, table.codes_IL.tolist()), strict=True)), table.sizes
    readers = {".json": lambda: read_index(path, parse_sid), ".parquet": lambda: _of_parquet(path)}
    mend = f"give a file that ends in {', '.join(readers)}, or a folder of recast-train tokenize"
    require(path.suffix in readers, str(path), f"its name ends in {path.suffix!r};", mend)
    try:
        codes = readers[path.suffix]()
    except DataError as error:
        raise SemanticIdError(str(error)) from error
    return codes, tuple(max(column) + 1 for column in zip(*codes.values(), strict=True))


def _of_parquet(path: Path) -> dict[str, Codes]:
    lazy = scan_parquet(path, DataError)
    with file_faults(path, DataError):
        frame = lazy.collect()
    item, sid = (_column(path, frame, names) for names in (ITEM_COLUMNS, SID_COLUMNS))
    if item.dtype != pl.String and not item.dtype.is_integer():
        raise SemanticIdError(f"{path}: column {item.name!r} is {item.dtype}; make it text or whole numbers")
    found: dict[str, Codes] = {}
    levels = 0
    for row, (name, value) in enumerate(zip(item.cast(pl.String).to_list(), sid.to_list(), strict=True)):
        codes = parse_sid(value)
        levels = levels or len(codes or ())
        if not name or name in found:
            raise SemanticIdError(f"{path}: row {row}, column {item.name}: found {name!r}; give each row an item of its own")
        if codes is None or len(codes) != levels:
            shape = f"{levels} levels" if levels else "whole numbers from 0, or tokens like <a_1>"
            raise SemanticIdError(f"{path}: row {row}, column {sid.name}: found {str(value)[:80]!r}; write {shape}")
        found[name] = codes
    return found


def _column(path: Path, frame: pl.DataFrame, names: Sequence[str]) -> pl.Series:
    there = [name for name in names if name in frame.columns]
    if len(there) != 1:
        raise SemanticIdError(f"{path}: {len(there)} of the columns {', '.join(names)} among {frame.columns}; name one so")
    return frame[there[0]]


def _table(items: Sequence[str], codes_IL: Ints, sizes: tuple[int, ...], collisions: Collisions) -> SidTable:
    found: dict[str, Any] = cluster_sizes(codes_IL)
    if collisions == "level" and found["collisions"]:
        codes_IL = number_shared(codes_IL)
        sizes = (*sizes, found["largest_cluster"])
    elif found["collisions"]:
        found["kept"] = True
    report = {"method": "given", **usage(codes_IL, sizes), **found, "reconstruction_error": []}
    return SidTable(codes_IL, sizes, report, tuple(items))
