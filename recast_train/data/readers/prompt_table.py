"""Rows of the formats that come as prompts (history, targets), gathered, and turned into arrays.

Axis letters: N prompts (rows), M items of all rows one after another, I items, L levels, H history positions, T targets.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recast_train.data.interactions import PAD, Dataset, Prompts, offsets, runs
from recast_train.data.readers.given_sids import Codes

Chat = Sequence[dict[str, Any]]


@dataclass
class PromptTable:
    """Prompts in the order of a file's rows. `codes` numbers the items in the order of its keys and holds their SIDs; the
    tables of all splits share it.

    Row n has the history `history[history_end[n - 1] : history_end[n]]`, and so its targets; no row lacks either.
    """

    codes: dict[str, Codes]
    titles: dict[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    history: array = field(default_factory=lambda: array("q"))
    history_end: array = field(default_factory=lambda: array("q"))
    targets: array = field(default_factory=lambda: array("q"))
    targets_end: array = field(default_factory=lambda: array("q"))

    def add(self, user: str, history: Sequence[int], targets: Sequence[int], chat: Chat | None = None) -> None:
        """Append a row; a target that is there twice counts once."""
        self.users.append(user)
        self.history.extend(history)
        self.history_end.append(len(self.history))
        self.targets.extend(dict.fromkeys(targets))
        self.targets_end.append(len(self.targets))
        if chat is not None:
            self.chats.append(chat)

    def __len__(self) -> int:
        return len(self.users)


def to_prompts(table: PromptTable, items: Sequence[str], users: Mapping[str, int], max_history: int) -> Prompts:
    """Prompts of a table: the last `max_history` items of a history are the window, all of it was seen."""
    place = {item: index for index, item in enumerate(items)}
    number_I = np.array([place[item] for item in table.codes], dtype=np.int64)
    seen, targets = (number_I[np.array(flat, dtype=np.int64)] for flat in (table.history, table.targets))
    offset, target_offset = (_with_zero(end) for end in (table.history_end, table.targets_end))
    back_H = np.arange(max_history, 0, -1)
    inside = back_H <= np.diff(offset)[:, None]
    history_NH = _padded(seen, offset[1:, None] - back_H, inside)
    ahead_T = np.arange(max(1, np.diff(target_offset).max(initial=1)))
    targets_NT = _padded(targets, target_offset[:-1, None] + ahead_T, ahead_T < np.diff(target_offset)[:, None])
    user_N = np.array([users[user] for user in table.users], dtype=np.int64)
    chat_N = None
    if table.chats:
        chat_N = np.empty(len(table), dtype=object)
        chat_N[:] = table.chats
    return Prompts(history_NH, targets_NT, user_N, offset, seen, chat_N)


def windows(train: Prompts, items: Sequence[str], users: list[str], titles: list[str]) -> Dataset:
    """Train prompts as sequences: each is one, its whole history and then its targets in the order given, all of it train.

    So a "user" of this data set is a prompt (`users` repeats a name for each prompt of that user), a training window lies
    inside one prompt, and an item counts once for every prompt whose history holds it: early items of users with many
    prompts weigh more than they did in the log. Validation and test are empty here: their prompts come from the format.
    """
    count_N, seen_N = (train.targets_NT >= 0).sum(1), np.diff(train.seen_offset)
    offset = offsets(seen_N + count_N)
    item_M = np.empty(offset[-1], dtype=np.int64)
    item_M[runs(offset[:-1], seen_N)] = train.seen_item
    item_M[runs(offset[:-1] + seen_N, count_N)] = train.targets_NT[train.targets_NT >= 0]
    end_N = np.diff(offset)
    names = [users[user] for user in train.user_N.tolist()]
    return Dataset(list(items), names, titles, item_M, offset, end_N, end_N)


def _with_zero(end: array) -> NDArray[np.int64]:
    return np.concatenate([[0], np.array(end, dtype=np.int64)])


def _padded(flat: NDArray[np.int64], source: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(inside, flat[np.where(inside, source, 0)], PAD) if len(flat) else np.full(source.shape, PAD)
