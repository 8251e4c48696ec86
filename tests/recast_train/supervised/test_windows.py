"""Windows of supervised training: each train item once an epoch, nothing later, the same for a step whenever it is asked."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sid_world import tiny_dataset

from recast_train.data import Dataset
from recast_train.supervised.windows import PARTS, Windows, layouts

LENGTHS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=12).filter(
    lambda u: any(t for t, _ in u)
)


def numbered(lengths: list[tuple[int, int]]) -> Dataset:
    """Users with so many train and later items, all items different, so that an item says where it lies."""
    train, later = (np.array(part, dtype=np.int64) for part in zip(*lengths, strict=True))
    offset = np.concatenate([[0], np.cumsum(train + later)])
    names = [f"i{item:04}" for item in range(int(offset[-1]))]
    return Dataset(names, [f"u{u}" for u in range(len(train))], [], np.arange(offset[-1]), offset, train, train)


def epoch(windows: Windows, number: int) -> list[list[int]]:
    steps = windows.steps_an_epoch
    rows = [row for step in range(number * steps + 1, (number + 1) * steps + 1) for row in windows.step(step)]
    return [row[row >= 0].tolist() for row in rows]


@given(LENGTHS, st.integers(2, 8), st.integers(1, 6), st.integers(0, 3))
def test_an_epoch_holds_every_train_item_once_in_order(lengths, window: int, batch: int, number: int) -> None:
    data = numbered(lengths)
    rows = epoch(Windows(data, window, batch, seed=1), number)
    wanted = [item for user in range(data.n_users) for item in data.sequence(user)[: data.train_end_U[user]].tolist()]
    assert sorted(item for row in rows for item in row) == wanted
    for row in rows:
        assert 1 <= len(row) <= window
        assert row == list(range(row[0], row[0] + len(row)))
        user = int(np.searchsorted(data.offset_U1, row[0], side="right")) - 1
        assert row[-1] < data.offset_U1[user] + data.train_end_U[user]


@given(LENGTHS, st.integers(2, 8), st.integers(1, 6))
def test_a_step_has_at_least_the_batch(lengths, window: int, batch: int) -> None:
    windows = Windows(numbered(lengths), window, batch, seed=0)
    sizes = [len(windows.step(step)) for step in range(1, 2 * windows.steps_an_epoch + 1)]
    assert min(sizes) >= min(batch, sum(1 for train, _ in lengths if train))


def test_long_sequences_are_cut_elsewhere_each_epoch_and_all_is_drawn_from_seed_and_step() -> None:
    data = numbered([(40, 2)])
    cuts = [tuple(sorted(row[0] for row in epoch(Windows(data, 8, 2, seed=0), number))) for number in range(12)]
    assert len(set(cuts)) > 4
    late, again = Windows(data, 8, 2, seed=0), Windows(data, 8, 2, seed=0)
    expected = [again.step(step).tolist() for step in range(1, 30)]
    assert late.step(29).tolist() == expected[28]
    assert [Windows(data, 8, 2, seed=1).step(step).tolist() for step in range(1, 30)] != expected


def test_cropping_drops_first_items_of_its_share_of_windows() -> None:
    data = numbered([(6, 0)] * 400)
    rows = epoch(Windows(data, 8, 16, seed=0, crop=0.5), 0)
    first = Counter(row[0] % 6 for row in rows)
    assert all(row[-1] % 6 == 5 for row in rows)
    assert set(first) == {0, 1, 2, 3, 4}
    assert 1 - first[0] / 400 == pytest.approx(0.5 * 4 / 5, abs=0.08)  # a fifth of the crops drops nothing


@given(LENGTHS, st.integers(2, 8), st.integers(1, 6), st.sampled_from([0.2, 0.5, 0.9]))
def test_item_dropout_leaves_out_items_of_a_window_and_never_all(lengths, window: int, batch: int, share: float) -> None:
    data = numbered(lengths)
    whole, thinned = (epoch(Windows(data, window, batch, 1, item_dropout=rate), 0) for rate in (0.0, share))
    assert len(whole) == len(thinned)
    for row, less in zip(whole, thinned, strict=True):
        assert less == sorted(less)
        assert set(less) <= set(row)
        assert less


def test_item_dropout_leaves_out_its_share_and_others_in_each_epoch() -> None:
    windows = Windows(numbered([(8, 0)] * 400), 8, 16, seed=0, item_dropout=0.25)
    first, second = ({item for row in epoch(windows, number) for item in row} for number in (0, 1))
    assert len(first) / 3200 == pytest.approx(0.75, abs=0.03)
    assert len(first & second) / 3200 == pytest.approx(0.75**2, abs=0.03)
    assert windows.step(3).tolist() == windows.step(3).tolist()


def test_layouts_are_the_same_windows_with_less_padding() -> None:
    windows = Windows(tiny_dataset(80), 12, 32, seed=0).step(1)
    parts = layouts(windows)
    assert len(parts) == PARTS
    found = Counter(tuple(row[row >= 0].tolist()) for part in parts for row in part)
    assert found == Counter(tuple(row[row >= 0].tolist()) for row in windows)
    assert all((part >= 0).any(0).all() for part in parts)
    assert sum(part.size for part in parts) < windows.size
    assert [len(part) for part in layouts(windows[:2])] == [1, 1]


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_no_other_cut_into_as_many_layouts_has_fewer_positions(lengths: list[int]) -> None:
    windows = np.where(np.arange(6) < np.array(lengths)[:, None], 7, -1)
    parts, ordered = layouts(windows), sorted(lengths)
    assert len(parts) == min(PARTS, len(lengths))
    ways = itertools.combinations(range(1, len(ordered)), len(parts) - 1)
    every = [[ordered[a:b] for a, b in itertools.pairwise([0, *cuts, len(ordered)])] for cuts in ways]
    assert sum(part.size for part in parts) == min(sum(len(part) * part[-1] for part in way) for way in every)
