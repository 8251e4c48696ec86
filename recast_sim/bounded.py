"""Reads that end: ordinary files alone, up to a stated size, so that no pipe, device or swollen file holds a command up."""

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MEGABYTE = 1 << 20
JSON_BYTES = 256 * MEGABYTE  # of one JSON file: the largest that a run writes has a few
TENSOR_BYTES = 64 * 1024 * MEGABYTE  # of one file of tensors, read whole
JSON_DEPTH = 100  # of lists and objects in each other: a run's have under ten


@contextmanager
def open_ordinary(path: Path, error: type[ValueError]) -> Iterator[BinaryIO]:
    """A file for reading, or what a link leads to.

    Raises `error` for what is no ordinary file (a folder, a pipe, a device: reading those may never end); OSError otherwise.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    ordinary = stat.S_ISREG(os.fstat(number).st_mode)
    if not ordinary:
        os.close(number)
        raise error(f"{path}: is no ordinary file but a folder, a pipe or a device; give a file")
    with open(number, "rb") as file:
        yield file


def read_bounded(path: Path, limit: int, error: type[ValueError]) -> bytes:
    """The bytes of an ordinary file. Raises `error` where it is larger than `limit` bytes, grows, or is no ordinary file."""
    with open_ordinary(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise error(f"{path}: has over {limit / MEGABYTE:.6g} MB, the most that is read of it; give a smaller file")
        found = file.read(size + 1)
    if len(found) > size:
        raise error(f"{path}: grows while it is read; give a file that is finished")
    return found


def read_json_file(path: Path, error: type[ValueError], limit: int = JSON_BYTES) -> Any:
    """The value of a JSON file.

    Raises `error` where the file is no UTF-8 text, no JSON, over `limit` bytes or nested deeper than JSON_DEPTH, or holds NaN
    or an infinity; OSError where it cannot be opened.
    """
    return json_value(read_bounded(path, limit, error), path, error)


def json_value(content: bytes, path: Path, error: type[ValueError], line: int = 0) -> Any:
    """The value of a JSON text, a file's or that of one line; faults as `read_json_file` says."""
    place = f"{path}: line {line}" if line else str(path)

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):  # NaN and Infinity, which no other reader takes, or 1e999
            raise error(f"{place}: holds the number {text[:20]}; write a finite one or null")
        return value

    try:
        value = json.loads(content.decode("utf-8"), parse_constant=number, parse_float=number)
    except UnicodeDecodeError as fault:
        raise error(f"{place}: not UTF-8 text ({fault.reason} at byte {fault.start})") from fault
    except json.JSONDecodeError as fault:
        found = f"{place} is not JSON" if line else f"{place}: not JSON at line {fault.lineno}"
        raise error(f"{found}: {fault.msg}") from fault
    except error:
        raise
    except ValueError as fault:  # a whole number of thousands of digits
        raise error(f"{place}: not JSON: {str(fault).split(';')[0]}") from fault
    except RecursionError:
        too_deep, value = True, None
    else:
        too_deep = _deeper(value, JSON_DEPTH)
    if too_deep:
        raise error(f"{place}: JSON nested over {JSON_DEPTH} deep; no run writes that")
    return value


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`. Raises ValueError for a key that is there twice: readers differ in which of them they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _deeper(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 0 or any(_deeper(part, depth - 1) for part in inner if isinstance(part, dict | list))
