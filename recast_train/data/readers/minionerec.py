"""Readers of MiniOneRec's files (arXiv 2510.24431): an index of item to SID tokens, and CSV files of prompts a split."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recast_sim.runs.table_files import text_lines
from recast_train.data.data_error import DataError
from recast_train.data.readers.given_sids import Codes, parse_levels
from recast_train.data.readers.prompt_table import PromptTable
from recast_train.data.wanted_columns import csv_columns

COLUMNS = (
    "user_id",
    "history_item_title",
    "item_title",
    "history_item_id",
    "item_id",
    "history_item_sid",
    "item_sid",
)
_ELEMENT = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|-?[0-9]+"""
_LIST = re.compile(rf"\[\s*(?:(?:{_ELEMENT})(?:\s*,\s*(?:{_ELEMENT}))*)?\s*\]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_index(path: Path, parse: Callable[[Any], Codes | None] | None = None) -> dict[str, Codes]:
    """Item id to codes from an `.index.json` file: an object such as {"0": ["<a_236>", "<b_231>", "<c_226>"]}.

    `parse` reads an item's value; default such a list alone.

    Raises DataError with file and item for what is not such an object, an item that is there twice, an SID token that does
    not name its level, and SIDs of different lengths. Items may share an SID, as in MiniOneRec's own files.
    """
    text = "".join(line for _, line in text_lines(path, DataError))
    try:
        pairs = json.loads(text, object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); is it cut off? fetch it again") from error
    if not text.lstrip().startswith("{") or not pairs:
        raise DataError(f'{path}: not an object of items; write {{"item": ["<a_1>", "<b_2>", "<c_3>"], ...}}')
    index: dict[str, Codes] = {}
    levels = 0
    for item, tokens in pairs:
        codes = (parse or _tokens)(tokens)
        levels = levels or len(codes or ())
        if codes is None or len(codes) != levels:
            shape = f"{levels} tokens like " if levels else ""
            raise DataError(f'{path}: item {item!r}: found {tokens!r}; write {shape}["<a_1>", "<b_2>", "<c_3>"]')
        if item in index:
            raise DataError(f"{path}: item {item!r}: is there twice; give an item one SID")
        index[item] = codes
    return index


def read_minionerec(path: Path, index: dict[str, Codes], titles: dict[str, str] | None = None) -> PromptTable:
    """Prompts of one CSV file (columns COLUMNS in any order; the history columns hold Python lists), items as in `index`.

    `titles` are known from other files, and grow by those of this one. Raises DataError with file, line and column for what
    `csv_columns` refuses, a list that is none, lists of different length, an empty history or user, an item that the index
    lacks, an SID that is not the index's, and an item of two titles.
    """
    table = PromptTable(index, {} if titles is None else titles)
    number = {item: place for place, item in enumerate(index)}
    for line, cells in csv_columns(path, COLUMNS):
        row: dict[str, str] = dict(zip(COLUMNS, cells, strict=True))
        history = {name: _parsed(path, line, name, row[name]) for name in COLUMNS if name.startswith("history")}
        count = len(history["history_item_id"])
        if not count:
            raise _bad(path, line, "history_item_id", row["history_item_id"], "an empty history asks nothing, drop the row")
        for name, found in history.items():
            if len(found) != count:
                raise _bad(path, line, name, row[name], f"{len(found)} values for {count} ids; give one a history item")
        if not row["user_id"]:
            raise _bad(path, line, "user_id", "", "give every row an id")
        for name in ("item_id", "item_sid", "item_title"):
            _learn(path, line, name, table, [row["item_id"]], [row[name]])
            _learn(path, line, f"history_{name}", table, history["history_item_id"], history[f"history_{name}"])
        table.add(row["user_id"], [number[item] for item in history["history_item_id"]], [number[row["item_id"]]])
    return table


def _learn(path: Path, line: int, column: str, table: PromptTable, items: Sequence[str], values: Sequence[str]) -> None:
    """Hold one column against the index and the titles known so far."""
    for item, value in zip(items, values, strict=True):
        if column.endswith("item_id") and item not in table.codes:
            raise _bad(path, line, column, value, "the index has no such item; give the index of this file")
        if column.endswith("sid") and parse_levels(re.findall("<[^>]*>?|[^<]+", value), "") != table.codes[item]:
            raise _bad(path, line, column, value, f"item {item!r} has {table.codes[item]} in the index; give its own index")
        if column.endswith("title") and table.titles.setdefault(item, value) != value:
            raise _bad(path, line, column, value, f"item {item!r} was {table.titles[item]!r} before; give an item one title")


def _parsed(path: Path, line: int, column: str, text: str) -> list[str]:
    """The strings and whole numbers of a Python list, as strings."""
    if _LIST.fullmatch(text) is None:
        raise _bad(path, line, column, text, "write a Python list of strings or whole numbers")
    return [_unquoted(token) for token in re.findall(_ELEMENT, text)]


def _unquoted(token: str) -> str:
    if token[0] not in "'\"":
        return token
    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", _unescaped, token[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        return chr(int(digits, 16)) if int(digits, 16) <= 0x10FFFF else match[0]
    return _ESCAPES.get(match[4], match[4])


def _tokens(found: Any) -> Codes | None:
    good = isinstance(found, list) and all(isinstance(token, str) for token in found)
    return parse_levels(found, "") if good else None


def _bad(path: Path, line: int, column: str, value: str, mend: str) -> DataError:
    shown = value if len(value) <= 120 else f"{value[:120]}..."
    return DataError(f"{path}: line {line}, column {column}: found {shown!r}; {mend}")
