"""Interactions of users with items: read, filtered to a k-core, ordered in time, split, and turned into prompts.

The order inside a user is by timestamp. Rating sites stamp whole pages at once (in ML-100K 76 % of the interactions
share user and second with another), so ties are common and the order inside a tie carries no information. It is drawn
by a hash of (seed, user, item): blake2b, the same on every platform and in every version of polars.

Axis letters: M interactions, U users, I items, N prompts, H history positions, T targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recast_sim.runs import derive_seed
from recast_train.data.data_error import DataError
from recast_train.data.readers.recbole import read_atomic, read_titles
from recast_train.data.splits import SplitConfig, cut

Split = Literal["train", "validation", "test"]
PAD = -1  # fills the left of a history that is shorter than the window


@dataclass(frozen=True)
class Dataset:
    """Time-ordered item sequences of all users, one after another, with the split boundaries of each.

    User u owns `item_M[offset_U1[u] : offset_U1[u + 1]]`; its first `train_end_U[u]` items are train, those up to
    `validation_end_U[u]` validation, the rest test. Items and users are indices into `items` and `users`, both in
    sorted (string) order; `titles` is aligned to `items`, or empty where the source has none.
    """

    items: list[str]
    users: list[str]
    titles: list[str]
    item_M: NDArray[np.int64]
    offset_U1: NDArray[np.int64]
    train_end_U: NDArray[np.int64]
    validation_end_U: NDArray[np.int64]

    @property
    def n_items(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        return len(self.users)

    def sequence(self, user: int) -> NDArray[np.int64]:
        """All items of one user in time order."""
        return self.item_M[self.offset_U1[user] : self.offset_U1[user + 1]]

    def bounds(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and one-past-last position of a split in each user's sequence: two arrays (U,)."""
        length_U = np.diff(self.offset_U1)
        edges = {
            "train": (np.zeros_like(length_U), self.train_end_U),
            "validation": (self.train_end_U, self.validation_end_U),
            "test": (self.validation_end_U, length_U),
        }
        if split not in edges:
            raise DataError(f"split: {split!r} is not a split; choose one of {', '.join(edges)}")
        return edges[split]


@dataclass(frozen=True)
class Prompts:
    """Next-item questions: the last items before a target, the target or targets, and all that the user had seen by then.

    `history_NH` is left-padded with -1 (PAD). `targets_NT` is right-padded with -1: a prompt has one target or more, each
    once, and any of them answers it. `seen` is in CSR form: prompt n had seen
    `seen_item[seen_offset[n] : seen_offset[n + 1]]`, the whole past in time order, not only the window. `chat_N` holds, where
    the format has them, each prompt's messages before the answer (dicts of role and content), for a chat template.

    Raises DataError for targets that are not (N, T), or a row of them whose first is missing.
    """

    history_NH: NDArray[np.int64]
    targets_NT: NDArray[np.int64]
    user_N: NDArray[np.int64]
    seen_offset: NDArray[np.int64]
    seen_item: NDArray[np.int64]
    chat_N: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        shape = self.targets_NT.shape
        if len(shape) != 2 or shape[0] != len(self.history_NH) or not shape[1] or (self.targets_NT[:, 0] < 0).any():
            raise DataError(
                f"targets_NT: shape {shape}, or a prompt without a target; give (prompts, targets), -1 on the right"
            )

    @property
    def target_N(self) -> NDArray[np.int64]:
        """The first target of each prompt, (N,): the only one where T = 1."""
        return self.targets_NT[:, 0]

    def __len__(self) -> int:
        return len(self.targets_NT)

    def take(self, rows: slice | NDArray[np.integer]) -> "Prompts":
        """The prompts of some rows, in the order given."""
        row_n = np.arange(len(self))[rows]
        count_n = np.diff(self.seen_offset)[row_n]
        seen = self.seen_item[runs(self.seen_offset[row_n], count_n)]
        chat_n = None if self.chat_N is None else self.chat_N[row_n]
        return Prompts(self.history_NH[row_n], self.targets_NT[row_n], self.user_N[row_n], offsets(count_n), seen, chat_n)


def load_ml100k(folder: Path, seed: int = 0, user_core: int = 5, item_core: int = 5) -> Dataset:
    """ML-100K from the folder of `fetch_ml100k`: every rating is an interaction, cores, split 80 / 10 / 10 by time.

    `seed` orders the ties. At cores of 5: 943 users, 1,349 items, 99,287 interactions.
    """
    kept, _ = drop_rare(read_atomic(folder / "ml-100k.inter"), user_core, item_core)
    return split_by_time(build_sequences(kept, seed), read_titles(folder / "ml-100k.item"))


@dataclass(frozen=True)
class Dropped:
    """What the cores took: users and items, and the interactions that went with either (with both: counted as the user's)."""

    users: int = 0
    items: int = 0
    interactions_of_users: int = 0
    interactions_of_items: int = 0


def drop_rare(frame: pl.DataFrame, user_core: int, item_core: int) -> tuple[pl.DataFrame, Dropped]:
    """Drop users and items with fewer interactions (rows, repeats counted) than their core until none is left to drop."""
    for name, core in (("user_core", user_core), ("item_core", item_core)):
        if core < 1:
            raise DataError(f"{name}: {core} is not a core; choose 1 (keep all) or more")
    rare_user, rare_item = pl.len().over("user") < user_core, pl.len().over("item") < item_core
    kept, by_user, by_item = frame, 0, 0
    while True:
        marked = kept.with_columns(rare_user.alias("rare user"), rare_item.alias("rare item"))
        of_user, either = int(marked["rare user"].sum()), int((marked["rare user"] | marked["rare item"]).sum())
        if not either:
            users, items = (frame[name].n_unique() - kept[name].n_unique() for name in ("user", "item"))
            return kept, Dropped(users, items, by_user, by_item)
        by_user, by_item = by_user + of_user, by_item + either - of_user
        kept = marked.filter(~pl.col("rare user") & ~pl.col("rare item")).drop("rare user", "rare item")


def build_sequences(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Rows sorted by user, then timestamp, ties by a seeded hash; the order of the input rows does not matter."""
    ties = [_tie(seed, user, item) for user, item in frame.select("user", "item").iter_rows()]
    ranked = frame.with_columns(pl.Series("tie", ties, dtype=pl.UInt64))
    keys = ["user", "timestamp", "tie", *(name for name in frame.columns if name not in ("user", "timestamp"))]
    return ranked.sort(keys).drop("tie")


def split_by_time(sequences: pl.DataFrame, titles: dict[str, str] | None = None, split: SplitConfig | None = None) -> Dataset:
    """Cut each user's sequence (the order of its rows) into train, then validation, then test by `SplitConfig`'s rule.

    Raises:
        DataError: an empty table, an item without a title, a rule that cannot be followed.
    """
    if sequences.is_empty():
        raise DataError("interactions: no row is left; lower a core or give a larger file")
    users, user_M = _index(sequences["user"])
    items, item_M = _index(sequences["item"])
    length_U, order_M = np.bincount(user_M), np.argsort(user_M, kind="stable")
    time_M = sequences["timestamp"].to_numpy()[order_M] if "timestamp" in sequences.columns else None
    train_end_U, validation_end_U = cut(length_U, time_M, split or SplitConfig())
    return Dataset(items, users, _aligned(titles, items), item_M[order_M], offsets(length_U), train_end_U, validation_end_U)


def prompts(dataset: Dataset, split: Split, max_history: int = 20, min_history: int = 1, targets: int = 1) -> Prompts:
    """One prompt per item of the split that has at least `min_history` items before it.

    Its targets are that item and those after it in the split, `targets` of them at most, each once. The history of a
    validation or test target is everything before it in time, train or not. Rows are in user order, then time order. Raises
    DataError for an unknown split, a window below 1, or no targets.
    """
    if max_history < 1 or min_history < 1 or targets < 1:
        raise DataError(f"prompts: history of {min_history} to {max_history} items, {targets} targets; all must be 1 or more")
    start_U, end_U = dataset.bounds(split)
    start_U = np.maximum(start_U, min_history)
    count_U = np.maximum(end_U - start_U, 0)
    user_N = np.repeat(np.arange(dataset.n_users), count_U)
    past_N = runs(start_U, count_U)  # how many items lie before the target
    first_N = dataset.offset_U1[user_N]
    back_H = np.arange(max_history, 0, -1)
    source_NH = (first_N + past_N)[:, None] - back_H
    history_NH = np.where(back_H <= past_N[:, None], dataset.item_M[source_NH.clip(0)], PAD)
    seen = dataset.item_M[runs(first_N, past_N)]
    next_NT = (first_N + past_N)[:, None] + np.arange(targets)
    there_NT = past_N[:, None] + np.arange(targets) < end_U[user_N][:, None]
    targets_NT = np.where(there_NT, dataset.item_M[next_NT.clip(max=len(dataset.item_M) - 1)], PAD)
    return Prompts(history_NH, _each_once(targets_NT), user_N, offsets(past_N), seen)


def _each_once(targets_NT: NDArray[np.int64]) -> NDArray[np.int64]:
    """The targets without repeats, in their order, PAD on the right."""
    same_NTT = targets_NT[:, :, None] == targets_NT[:, None, :]
    again_NT = (same_NTT & np.tri(targets_NT.shape[1], k=-1, dtype=bool)).any(2) | (targets_NT == PAD)
    return left_packed(targets_NT, ~again_NT)


def left_packed(items_NW: NDArray[np.int64], kept_NW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The kept items of each row in their order, PAD on the right (N, W)."""
    order_NW = np.argsort(~kept_NW, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept_NW, items_NW, PAD), order_NW, axis=1)


def without_train(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The data without the train items of a drawn share of the users, and that with no other train items than theirs.

    Raises:
        DataError: no user, or every one, would be held back.
    """
    users = np.flatnonzero(dataset.train_end_U)
    drawn = np.random.default_rng(derive_seed(seed, "held back")).permutation(users)[: round(share * len(users))]
    if not 0 < len(drawn) < len(users):
        raise DataError(
            f"held_back: {share:g} of {len(users)} users holds back {len(drawn)}; some must be held back, some stay"
        )
    held_U = np.isin(np.arange(dataset.n_users), drawn)
    end_U = dataset.train_end_U
    kept, held = (replace(dataset, train_end_U=np.where(own_U, end_U, 0)) for own_U in (~held_U, held_U))
    return kept, held


def sample_prompts(ask: Prompts, count: int, seed: int, name: str) -> Prompts:
    """At most `count` prompts, drawn without replacement by the seed and a name, in their old order."""
    chosen = np.random.default_rng(derive_seed(seed, name)).permutation(len(ask))[:count]
    return ask.take(np.sort(chosen))


def train_matrix(dataset: Dataset) -> sparse.csr_array:
    """Binary (U, I) matrix of the train split alone; a repeated interaction counts once."""
    item = dataset.item_M[runs(dataset.offset_U1[:-1], dataset.train_end_U)]
    user = np.repeat(np.arange(dataset.n_users), dataset.train_end_U)
    pairs = np.unique(np.stack([user, item]), axis=1)
    shape = (dataset.n_users, dataset.n_items)
    return sparse.csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=shape)


def _tie(seed: int, user: str, item: str) -> int:
    return int.from_bytes(blake2b(f"{seed}\t{user}\t{item}".encode(), digest_size=8).digest(), "little")


def _index(column: pl.Series) -> tuple[list[str], NDArray[np.int64]]:
    names = sorted(set(column))
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place[name] for name in column], dtype=np.int64)


def _aligned(titles: dict[str, str] | None, items: Sequence[str]) -> list[str]:
    missing = [item for item in items if titles is not None and item not in titles]
    if missing:
        raise DataError(f"titles: item {missing[0]!r} has no title ({len(missing)} in all); complete the .item file")
    return [titles[item] for item in items] if titles else []


def offsets(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of a CSR structure begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


def runs(start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """start[0], start[0] + 1, ... (count[0] of them), then start[1], ...: the ranges of a CSR structure."""
    within = np.arange(count.sum()) - np.repeat(offsets(count)[:-1], count)
    return np.repeat(start, count) + within
