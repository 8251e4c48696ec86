"""Plain ways to read the public formats, which say what a damaged file may still mean."""

import json
import re
from typing import Any

import numpy as np
import polars as pl

from recast_train.data.readers.prompt_table import PromptTable

ERROR = object()  # no result is justified


def prompts_of(table: PromptTable) -> list[tuple[list[str], list[str]]]:
    """History and target items of each row."""
    names = list(table.codes)
    history = np.split(np.array(table.history), table.history_end)[:-1]
    targets = np.split(np.array(table.targets), table.targets_end)[:-1]
    return [([names[i] for i in h], [names[i] for i in t]) for h, t in zip(history, targets, strict=True)]


def chats_of(table: PromptTable) -> list[tuple[Any, list[str]]]:
    return [(asked, targets) for asked, (_, targets) in zip(table.chats, prompts_of(table), strict=True)]


def split_sequences(text: str) -> list[tuple[str, str]]:
    return [(line.split()[0], item) for line in text.splitlines() for item in line.split()[1:]]


def split_cells(text: str, mark: str) -> Any:
    header, *rows = [line.split(mark) for line in text.splitlines()] or [[]]
    whole = all(len(row) == len(header) and row[-1] for row in rows)
    return [(*row[:2], *map(float, row[2:])) for row in rows] if whole else ERROR


def polars_table(content: bytes) -> Any:
    try:
        return pl.read_parquet(content).select("user", "item", "timestamp").rows()
    except BaseException:  # a panic of Rust is no Exception
        return ERROR


def polars_chats(content: bytes) -> Any:
    try:
        rows = [json.loads(text) for text in pl.read_parquet(content, columns=["messages"])["messages"]]
        return [(row[:-1], re.findall(r"(?:<s_[a-z]_[0-9]+>)+", row[-1]["content"].split("</think>")[1])) for row in rows]
    except BaseException:
        return ERROR
