"""Reader of OpenOneRec's RecIF parquet files: chats whose history and answers are semantic IDs in text."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recast_sim.runs.table_files import file_faults
from recast_train.data.data_error import DataError
from recast_train.data.readers.given_sids import Codes, parse_levels
from recast_train.data.readers.prompt_table import PromptTable
from recast_train.data.wanted_columns import parquet_columns

BATCH = 16384  # rows read at once
SHOWN = 3  # bad rows of which more than the number is told
_SID = re.compile(r"<\|sid_begin\|>(.*?)<\|sid_end\|>", re.DOTALL)
_MARKS = re.compile(r"<\|sid_(?:begin|end)\|>|<s_")
_ROLES = ("system", "user", "assistant")
_Known = tuple[dict[str, Codes], dict[str, Codes]]  # SIDs of the rows before, and those that this row adds
_SHAPE = "<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>"


@dataclass(frozen=True)
class ChatRow:
    """One row of a file: where it stands, the messages before the answer, and the SIDs of history and answer, without marks."""

    where: str
    number: int
    asked: list[dict[str, Any]]
    history: list[str]
    targets: list[str]


class BadRows:
    """Rows that were left out: how many of all, and what was wrong with the first."""

    def __init__(self) -> None:
        self.rows, self.count = 0, 0
        self.first: list[str] = []

    def add(self, error: DataError) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(str(error))

    def words(self) -> str:
        """One line: the count, and the first places."""
        return f"skipped {self.count:,} of {self.rows:,} rows that cannot be read, the first: {'; '.join(self.first) or 'none'}"


def scan_openonerec(path: Path, codes: dict[str, Codes], bad: BadRows | None = None) -> Iterator[ChatRow]:
    """Rows of one parquet file with a column `messages`, read `BATCH` at once; `codes` grows by the SIDs that they name.

    A row's messages are a JSON string: a list of {"role", "content"}, content a string or a list of {"type": "text", "text"}.
    The last one is the assistant's answer; its SIDs after any `</think>` are the targets, in its order. The SIDs of the
    system's and the user's messages are the history, in the order of the text. With `bad` a row that cannot be read is left out
    and counted there, and its SIDs do not enter `codes`. Raises DataError with file, row (from 0) and
    column for what `parquet_columns` refuses, a null, wrong JSON, other messages, an SID that is not whole or of another number
    of levels, no SID in the history, and none in the answer.
    """
    lazy = parquet_columns(path, {"messages": (pl.String,)})
    start = 0
    while True:
        with file_faults(path, DataError):
            texts = lazy.slice(start, BATCH).collect()["messages"].to_list()
        for number, text in enumerate(texts, start):
            row = _read(f"{path}: row {number}, column messages", number, text, codes, bad)
            if row is not None:
                yield row
        start += len(texts)
        if len(texts) < BATCH:
            return


def read_openonerec(path: Path, table: PromptTable | None = None, bad: BadRows | None = None) -> PromptTable:
    """Prompts of one parquet file, appended to `table` (a new one by default).

    Each target counts once, and the messages before the answer are kept as they are. An item is its SID: the catalog is what
    the files name, and `table.codes` grows by it. Users are not told: each row is its own. Raises what `scan_openonerec` does.
    """
    table = PromptTable({}) if table is None else table
    place = {item: index for index, item in enumerate(table.codes)}
    for row in scan_openonerec(path, table.codes, bad):
        for item in (*row.history, *row.targets):
            place.setdefault(item, len(place))
        history, targets = ([place[item] for item in items] for items in (row.history, row.targets))
        table.add(f"{path}:{row.number}", history, targets, row.asked)
    return table


def message_text(where: str, message: dict[str, Any]) -> str:
    """The text of a message, its parts joined. Raises DataError naming `where` for any other content."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise DataError(f"{where}: the {message['role']}'s content is {str(content)[:80]!r}; write a string or a list of parts")
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise DataError(f'{where}: found the part {str(part)[:80]!r}; write {{"type": "text", "text": ...}}')
    return "".join(part["text"] for part in parts)


def _read(where: str, number: int, text: str | None, codes: dict[str, Codes], bad: BadRows | None) -> ChatRow | None:
    """The row, once all of it is good: what a bad row names is not in the catalog."""
    new: dict[str, Codes] = {}
    if bad is not None:
        bad.rows += 1
    try:
        row = _row(where, number, text, (codes, new))
    except DataError as error:
        if bad is None:
            raise
        bad.add(error)
        return None
    codes.update(new)
    return row


def _row(where: str, number: int, text: str | None, codes: _Known) -> ChatRow:
    *asked, answer = _messages(where, text)
    if answer["role"] != "assistant":
        raise DataError(f"{where}: the last message is of {answer['role']!r}; end with the assistant's answer")
    history = [item for message in asked if message["role"] != "assistant" for item in _items(where, codes, message)]
    targets = _items(where, codes, answer)
    for found, what in ((history, "messages before the answer"), (targets, "answer")):
        if not found:
            raise DataError(f"{where}: no SID in the {what}; write at least one as {_SHAPE}")
    return ChatRow(where, number, asked, history, targets)


def _messages(where: str, text: str | None) -> list[dict[str, Any]]:
    if text is None:
        raise DataError(f"{where}: found null; write a JSON list of messages")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write a JSON list of messages") from error
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: found {text[:80]!r}; write a JSON list of messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise DataError(f"{where}: found the message {str(message)[:80]!r}; give it a role of {', '.join(_ROLES)}")
        message_text(where, message)
    return messages


def _items(where: str, codes: _Known, message: dict[str, Any]) -> list[str]:
    """The SIDs of a message, in order; new ones enter the second of `codes`. A thought is not part of an answer."""
    text = message_text(where, message)
    if message["role"] == "assistant":
        text = text.rpartition("</think>")[2]
    inner = _SID.findall(text)
    if len(_MARKS.findall(text)) != 2 * len(inner) + sum(sid.count("<s_") for sid in inner):
        raise DataError(f"{where}: the {message['role']}'s text has an SID token outside begin and end; write {_SHAPE}")
    before, new = codes
    first = next(iter(before or new), "")
    levels = len((before or new).get(first, ()))
    for sid in inner:
        if sid in before or sid in new:
            continue
        own = parse_levels(re.findall("<[^>]*>?|[^<]+", sid), "s_")
        if own is None or (levels and len(own) != levels):
            shape = f"{levels} levels as in {first}" if levels else "levels as in <s_a_1><s_b_2><s_c_3>"
            raise DataError(f"{where}: found the SID {sid[:80]!r}; write {shape}")
        new[sid] = own
        first, levels = first or sid, len(own)
    return inner
