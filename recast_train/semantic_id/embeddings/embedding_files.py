"""Embeddings that a user brings: a parquet or safetensors file with item ids, or bare rows in the numeric order of the ids.

Axis letters: I items of the data, R rows of the file, E embedding dimensions.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError  # numpy parses an .npy header as Python

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from recast_sim.bounded import TENSOR_BYTES, open_ordinary, read_bounded
from recast_sim.runs.table_files import file_faults, scan_parquet
from recast_train.semantic_id.sid_error import SemanticIdError

_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_HEADER_BYTES = 8  # of a safetensors file: the length of its JSON header, little endian


def read_embeddings(path: Path, items: Sequence[str]) -> NDArray[np.float64]:
    """Embeddings (I, E) of the items, as they are in the file: no scaling.

    - `.parquet`: columns `item` (text or whole numbers) and `embedding` (list of numbers); rows in any order, more items
      allowed.
    - `.safetensors`: a tensor `embeddings` (R, E); with the metadata `items`, a JSON list of R ids, matched as in parquet.
    - `.npy`, and `.safetensors` without ids: one row per item of the data in the numeric order of the ids ("2" before "10"),
      all of which must be whole numbers: text has no such order. That the count fits is all that can be checked: prefer a file
      with ids.

    Raises SemanticIdError with file, row and mend for a file that cannot be read, rows that do not fit the items, an id
    that is twice there, and a value that is not finite.
    """
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise SemanticIdError(f"{path}: its name ends in {path.suffix!r}; give one of {', '.join(readers)}")
    names, rows_RE = readers[path.suffix](path)
    if rows_RE.ndim != 2 or not rows_RE.size or not _is_real(rows_RE):
        raise SemanticIdError(f"{path}: {rows_RE.dtype} of shape {rows_RE.shape}; give real numbers (items, dimensions)")
    rows_RE = rows_RE.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows_RE))
    if len(bad):
        row, column = bad[0]
        raise SemanticIdError(f"{path}: row {row}, dimension {column}: {rows_RE[row, column]}; make it finite")
    return rows_RE[_places(path, names, len(rows_RE), items)]


def _places(path: Path, names: list[str] | None, rows: int, items: Sequence[str]) -> NDArray[np.int64]:
    """The file's row of each item."""
    if names is None:
        return _by_number(path, rows, items)
    if len(names) != rows:
        raise SemanticIdError(f"{path}: {len(names)} item ids for {rows} rows; give one each")
    place: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in place:
            raise SemanticIdError(f"{path}: row {row}: item {name!r} is in row {place[name]} already; keep one of them")
        place[name] = row
    missing = [item for item in items if item not in place]
    if missing:
        raise SemanticIdError(f"{path}: no row for item {missing[0]!r} ({len(missing)} in all); add them")
    return np.array([place[item] for item in items], dtype=np.int64)


def order_of_rows(path: Path) -> str | None:
    """What to say of a file of `read_embeddings` whose rows have no ids; None where they have."""
    if path.suffix == ".parquet" or (path.suffix == ".safetensors" and _read_safetensors(path)[0] is not None):
        return None
    return f"{path.name} has no item ids: its rows were laid on the data's ids in numeric order"


def _by_number(path: Path, rows: int, items: Sequence[str]) -> NDArray[np.int64]:
    mend = "add the ids: .parquet with columns item and embedding, or the metadata 'items' of .safetensors"
    if rows != len(items):
        raise SemanticIdError(f"{path}: {rows} rows without item ids, the data has {len(items)} items; {mend}")
    other = [item for item in items if not _NUMBER.fullmatch(item)]
    if other:
        found = f"rows without item ids, and ids like {other[0]!r}, which have no numeric order"
        raise SemanticIdError(f"{path}: {found}; {mend}")
    place = np.empty(rows, dtype=np.int64)
    place[sorted(range(rows), key=lambda at: int(items[at]))] = np.arange(rows)
    return place


def _read_npy(path: Path) -> tuple[None, NDArray[np.generic]]:
    try:  # a memory map: a header that claims more than the file holds is an error before it is an allocation
        with open_ordinary(path, SemanticIdError):
            return None, np.lib.format.open_memmap(path, mode="r")
    except SemanticIdError:
        raise
    except (OSError, ValueError, OverflowError, TypeError, SyntaxError, TokenError) as error:
        raise _unreadable(path, "an .npy array without pickled objects", error) from error


def _read_safetensors(path: Path) -> tuple[list[str] | None, NDArray[np.generic]]:
    try:
        content = read_bounded(path, TENSOR_BYTES, SemanticIdError)
        tensors = load(content)
        length = int.from_bytes(content[:_HEADER_BYTES], "little")
        header = json.loads(content[_HEADER_BYTES : _HEADER_BYTES + length])
        names = json.loads(header.get("__metadata__", {}).get("items", "null"))
    except SemanticIdError:
        raise
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, "a safetensors file", error) from error
    if "embeddings" not in tensors:
        raise SemanticIdError(f"{path}: no tensor 'embeddings' among {sorted(tensors)}; name it so")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise SemanticIdError(f"{path}: metadata 'items' is not a JSON list of strings; write json.dumps(ids)")
    return names, tensors["embeddings"]


def _read_parquet(path: Path) -> tuple[list[str], NDArray[np.generic]]:
    lazy = scan_parquet(path, SemanticIdError)
    with file_faults(path, SemanticIdError):
        frame = lazy.collect()
    for name in ("item", "embedding"):
        if name not in frame.columns:
            raise SemanticIdError(f"{path}: no column {name!r} among {frame.columns}; name it so")
    item, vector = frame["item"], frame["embedding"]
    if item.dtype != pl.String and not item.dtype.is_integer():
        raise SemanticIdError(f"{path}: column 'item' is {item.dtype}; make it text or whole numbers")
    inner = vector.dtype.inner if isinstance(vector.dtype, pl.List | pl.Array) else None
    if not (isinstance(inner, pl.DataType) and inner.is_numeric()):
        raise SemanticIdError(f"{path}: column 'embedding' is {vector.dtype}; make it lists of floats")
    vector = vector.cast(pl.List(pl.Float64))
    width = vector.list.len().fill_null(0)
    bad = (item.is_null() | vector.is_null() | (width != width.max())).arg_true()
    if len(bad):
        raise SemanticIdError(f"{path}: row {bad[0]}: an empty cell, or not {width.max()} numbers; complete it")
    return item.cast(pl.String).to_list(), np.array(vector.to_list(), dtype=np.float64)


def _is_real(rows: NDArray[np.generic]) -> bool:
    return np.issubdtype(rows.dtype, np.floating) or np.issubdtype(rows.dtype, np.integer)


def _unreadable(path: Path, kind: str, error: BaseException) -> SemanticIdError:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return SemanticIdError(f"{path}: not readable as {kind} ({said}); write it again")
