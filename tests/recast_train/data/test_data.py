"""Interactions: reading, k-core, order, split, prompts, by brute force; the real ML-100K."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_train.data import (
    PAD,
    DataConfig,
    DataError,
    Dataset,
    Dropped,
    SplitConfig,
    build_sequences,
    drop_rare,
    load_ml100k,
    prompts,
    read_atomic,
    read_source,
    read_titles,
    split_by_time,
    train_matrix,
)
from recast_train.data.interactions import Split, without_train

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=60)


def table(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Interactions (user, item, timestamp) with names that sort as strings do."""
    user, item, time = zip(*rows, strict=True)
    columns = {"user": [f"u{u}" for u in user], "item": [f"i{i}" for i in item], "rating": [1.0] * len(rows)}
    return pl.DataFrame(columns | {"timestamp": [float(t) for t in time]})


def dataset(rows: list[tuple[int, int, int]]) -> Dataset:
    return split_by_time(build_sequences(table(rows), seed=0))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


# Reading


def test_read_atomic_finds_columns_by_name(tmp_path: Path) -> None:
    header = "timestamp:float\titem_id:token\textra:token\tuser_id:token\trating:float"
    frame = read_atomic(write(tmp_path / "a.inter", header, "881250949\t242\tx\t196\t3", "5\t7\ty\t01\t2.5"))
    assert frame.rows() == [("196", "242", 881250949), ("01", "7", 5)]
    assert frame.columns == ["user", "item", "timestamp"]


def test_read_atomic_takes_windows_line_ends_and_no_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.inter"
    path.write_bytes(f"{HEADER}\r\n1\t2\t3\t4\r\n5\t6\t7\t8".encode())
    assert read_atomic(path).rows() == [("1", "2", 4), ("5", "6", 8)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["user_id:token\trating:float\ttimestamp:float", "1\t2\t3"], r"line 1: no column of the item by its name"),
        (["user_id\titem_id\trating\ttimestamp", "1\t2\t3\t4"], r"line 1: no header of RecBole's \(name:type\)"),
        ([HEADER], r"line 2: missing"),
        ([""], r"line 1: the file is empty"),
        ([HEADER, "1\t2\t3\t4", "1\t2\t3\tgood"], r"line 3, column timestamp: found 'good'"),
        ([HEADER, "1\t2\t3\tnan"], r"line 2, column timestamp: found 'nan'"),
        ([HEADER, "1\t2\t3\t"], r"line 2, column timestamp: found ''"),
        ([HEADER, "\t2\t3\t4"], r"line 2, column user_id: found ''"),
        ([HEADER, "1\t2\t3\t4", "1\t2"], r"line 3: column 'rating:float' is missing in \['1', '2'\]"),
        ([HEADER, "1\t2\t3\t4\t5"], r"line 2: too many cells"),
    ],
)
def test_read_atomic_says_where_a_file_is_wrong(tmp_path: Path, lines: list[str], said: str) -> None:
    path = write(tmp_path / "bad.inter", *lines)
    with pytest.raises(DataError, match=said) as caught:
        read_atomic(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_atomic_refuses_what_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "b.inter").write_bytes(b"\xff\xfe\x00")
    for name, said in (("b.inter", "text in UTF-16; save it as UTF-8"), ("absent.inter", "cannot be read")):
        with pytest.raises(DataError, match=f"{name}: .*{said}"):
            read_atomic(tmp_path / name)


def test_titles_are_aligned_to_items_and_none_may_be_missing(tmp_path: Path) -> None:
    header = "item_id:token\tmovie_title:token_seq"
    titles = read_titles(write(tmp_path / "a.item", header, "i1\tToy Story", "i0\tBabe"))
    sequences = build_sequences(table([(0, 0, 1), (0, 1, 2)]), seed=0)
    assert split_by_time(sequences, titles).titles == ["Babe", "Toy Story"]
    with pytest.raises(DataError, match="item 'i1' has no title"):
        split_by_time(sequences, {"i0": "Babe"})


# k-core, order, split


@given(ROWS, st.integers(1, 4), st.integers(1, 4))
def test_cores_leave_the_largest_table_in_which_all_have_enough(rows, user_core: int, item_core: int) -> None:
    kept = list(rows)
    while True:
        users, items = [u for u, _, _ in kept], [i for _, i, _ in kept]
        fewer = [row for row in kept if users.count(row[0]) >= user_core and items.count(row[1]) >= item_core]
        if len(fewer) == len(kept):
            break
        kept = fewer
    found, dropped = drop_rare(table(rows), user_core, item_core)
    assert found.select("user", "item", "timestamp").rows() == [(f"u{u}", f"i{i}", float(t)) for u, i, t in kept]
    assert dropped.users == len({u for u, _, _ in rows}) - len({u for u, _, _ in kept})
    assert dropped.items == len({i for _, i, _ in rows}) - len({i for _, i, _ in kept})
    assert dropped.interactions_of_users + dropped.interactions_of_items == len(rows) - len(kept)
    assert user_core > 1 or not dropped.interactions_of_users
    assert item_core > 1 or not dropped.interactions_of_items


def test_what_each_core_drops_is_told_apart() -> None:
    rows = [(user, item, item) for user in range(3) for item in range(4)] + [(0, 7, 9), (4, 0, 0), (4, 1, 0)]
    assert drop_rare(table(rows), 3, 1)[1] == Dropped(users=1, items=0, interactions_of_users=2)
    assert drop_rare(table(rows), 1, 2)[1] == Dropped(users=0, items=1, interactions_of_items=1)


@pytest.mark.parametrize("cores", [(0, 1), (1, 0)])
def test_cores_refuse_zero(cores: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="_core: 0 is not a core"):
        drop_rare(table([(0, 0, 0)]), *cores)


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 9))
def test_sequences_are_in_time_order_whatever_the_order_of_rows(rows, random, seed) -> None:
    ordered = build_sequences(table(rows), seed)
    shuffled = random.sample(rows, len(rows))
    assert build_sequences(table(shuffled), seed).equals(ordered)
    keys = ordered.select("user", "timestamp").rows()
    assert keys == sorted(keys)


def test_the_seed_orders_ties_and_nothing_else() -> None:
    rows = [(0, item, 1) for item in range(6)] + [(0, 7, 0)]
    orders = {tuple(build_sequences(table(rows), seed)["item"]) for seed in range(20)}
    assert len(orders) > 15  # of 720 possible ones
    assert {order[0] for order in orders} == {"i7"}


def test_the_order_of_ties_is_pinned_for_every_platform() -> None:
    sequences = build_sequences(table([(0, item, 1) for item in range(6)]), seed=0)
    digests = {f"i{i}": hashlib.blake2b(f"0\tu0\ti{i}".encode(), digest_size=8).digest()[::-1] for i in range(6)}
    pinned = ["i2", "i0", "i5", "i1", "i3", "i4"]
    assert list(sequences["item"]) == sorted(digests, key=digests.__getitem__) == pinned


@given(st.lists(st.integers(1, 80), min_size=1, max_size=6))
def test_every_split_has_its_share(lengths: list[int]) -> None:
    data = dataset([(user, item, item) for user, length in enumerate(lengths) for item in range(length)])
    for user, length in enumerate(lengths):
        test = int(length - data.validation_end_U[user])
        validation = int(data.validation_end_U[user] - data.train_end_U[user])
        share = max(1, (length + 5) // 10)  # a tenth, half rounded up
        assert (validation, test) == {1: (0, 0), 2: (0, 1)}.get(length, (share, share))
        assert data.train_end_U[user] >= 1


def test_the_split_keeps_the_order_of_rows_of_interleaved_users() -> None:
    rows = [(place % 3, (7 * place) % 60, 0) for place in range(60)]
    data = split_by_time(table(rows))
    for user in range(3):
        names = [data.items[item] for item in data.sequence(user)]
        assert names == [f"i{item}" for owner, item, _ in rows if owner == user]


def split(rows: list[tuple[int, int, int]], **settings) -> Dataset:
    return split_by_time(build_sequences(table(rows), seed=0), split=SplitConfig(**settings))


@given(ROWS, st.sampled_from(["ratio", "leave-one-out", "global-time", "sessions"]))
def test_no_target_of_a_later_split_is_seen_in_an_earlier_one(rows, rule: str) -> None:
    ordered = build_sequences(table(rows), seed=0)
    try:
        data = split_by_time(ordered, split=SplitConfig(rule=rule))
    except DataError as error:
        assert (rule in ("global-time", "sessions"), "leaves train or test empty" in str(error)) == (True, True)  # noqa: PT017
        return
    times = [ordered.filter(pl.col("user") == user)["timestamp"].to_list() for user in data.users]
    parts: dict[str, list[float]] = {"train": [], "validation": [], "test": []}
    starts: dict[str, list[float]] = {"train": [], "validation": [], "test": []}
    for user, (train, validation) in enumerate(zip(data.train_end_U, data.validation_end_U, strict=True)):
        assert 0 <= train <= validation <= len(times[user])
        ends = {"train": (0, train), "validation": (train, validation), "test": (validation, len(times[user]))}
        for name, (first, last) in ends.items():
            parts[name] += times[user][first:last]
            starts[name] += times[user][:1] if last > first else []
        if rule == "sessions":
            assert sum(last > first for first, last in ends.values()) == 1
        if rule == "leave-one-out":
            assert [last - first for first, last in ends.values()][1:] == [int(len(times[user]) >= n) for n in (3, 2)]
    if rule in ("global-time", "sessions"):
        moments = parts if rule == "global-time" else starts
        present = [moments[name] for name in ("train", "validation", "test") if moments[name]]
        assert all(max(before) < min(after) for before, after in itertools.pairwise(present))
    history = prompts(data, "train", max_history=50)
    allowed = [set(data.sequence(user)[: data.train_end_U[user]].tolist()) for user in range(data.n_users)]
    for row in range(len(history)):
        seen = {*history.history_NH[row].tolist(), int(history.target_N[row])} - {PAD}
        assert seen <= allowed[history.user_N[row]]


def test_global_time_and_sessions_hold_out_their_shares() -> None:
    rows = [(place % 10, place % 7, place) for place in range(200)]
    data = split(rows, rule="global-time", validation=0.1, test=0.2)
    assert (data.train_end_U.sum(), data.validation_end_U.sum()) == (140, 160)
    sessions = [(user, item, 10 * user + item) for user in range(20) for item in range(3)]
    data = split(sessions, rule="sessions", validation=0.1, test=0.2)
    late = [data.users.index(f"u{user}") for user in range(16, 20)]
    assert np.flatnonzero(data.validation_end_U == 0).tolist() == sorted(late)
    assert (data.train_end_U == 3).sum() == 14
    asked = prompts(data, "test")
    assert len(asked) == 8  # two a session: its first item has no history


def test_split_refuses_bad_shares_an_empty_table_and_rules_without_times() -> None:
    for shares in ({"validation": 0.0}, {"test": 0.3}):
        with pytest.raises(DataError, match=r"SplitConfig\.(validation|test): 0\.[03]"):
            SplitConfig(**shares)
    sequences = build_sequences(table([(0, 0, 0), (0, 1, 0)]), seed=0)
    with pytest.raises(DataError, match="no row is left"):
        split_by_time(sequences.clear())
    for rule in ("global-time", "sessions"):
        with pytest.raises(DataError, match=f"'{rule}' needs times"):
            split_by_time(sequences.drop("timestamp"), split=SplitConfig(rule=rule))
        with pytest.raises(DataError, match="leaves train or test empty"):
            split_by_time(sequences, split=SplitConfig(rule=rule))


# Prompts


@given(ROWS, st.integers(1, 4), st.integers(1, 3))
def test_prompts_agree_with_a_loop_over_users(rows: list[tuple[int, int, int]], window: int, least: int) -> None:
    data = dataset(rows)
    for split in ("train", "validation", "test"):
        start_U, end_U = data.bounds(split)
        expected = [
            (user, data.sequence(user)[:place].tolist(), int(data.sequence(user)[place]))
            for user in range(data.n_users)
            for place in range(max(start_U[user], least), end_U[user])
        ]
        found = prompts(data, split, max_history=window, min_history=least)
        assert len(found) == len(expected)
        for row, (user, past, target) in enumerate(expected):
            padded = [PAD] * window + past
            assert found.history_NH[row].tolist() == padded[-window:]
            assert (found.user_N[row], found.target_N[row]) == (user, target)
            assert found.seen_item[found.seen_offset[row] : found.seen_offset[row + 1]].tolist() == past


@given(ROWS, st.integers(1, 5), st.sampled_from(["train", "validation", "test"]))
def test_the_next_items_of_a_split_are_targets_each_once(rows: list[tuple[int, int, int]], count: int, split: Split) -> None:
    data = dataset(rows)
    found, one = prompts(data, split, targets=count), prompts(data, split)
    assert found.targets_NT.shape == (len(one), count)
    assert np.array_equal(found.history_NH, one.history_NH)
    for row, user in enumerate(found.user_N):
        place, end = np.diff(found.seen_offset)[row], data.bounds(split)[1][user]
        wanted = list(dict.fromkeys(data.sequence(user)[place : min(place + count, end)].tolist()))
        assert found.targets_NT[row].tolist() == wanted + [PAD] * (count - len(wanted))


@given(ROWS, st.sampled_from([0.2, 0.5, 0.8]))
def test_what_is_held_back_is_in_no_supervised_window(rows: list[tuple[int, int, int]], share: float) -> None:
    data = dataset(rows)
    users = int((data.train_end_U > 0).sum())
    if not 0 < round(share * users) < users:
        with pytest.raises(DataError, match=r"held_back: .* some must be held back, some stay"):
            without_train(data, share, seed=0)
        return
    kept, held = without_train(data, share, seed=0)
    assert (kept.train_end_U + held.train_end_U == data.train_end_U).all()
    assert ((kept.train_end_U == 0) | (held.train_end_U == 0)).all()
    assert (held.train_end_U > 0).sum() == round(share * users)
    together = np.concatenate([prompts(part, "train").target_N for part in (kept, held)])
    assert np.array_equal(np.sort(together), np.sort(prompts(data, "train").target_N))


def test_a_source_holds_users_back_and_tests_them_all(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.txt", *(f"u{user} " + " ".join(f"i{(user + step) % 9}" for step in range(8)) for user in range(20))
    )
    plain = DataConfig("sequences", file, core=(1,))
    whole, part = read_source(plain), read_source(replace(plain, held_back=0.3, train_targets=3, test_targets=2))
    assert whole.held_back is None
    assert part.held_back is not None
    users = set(part.held_back.user_N)
    assert len(users) == 6
    assert users.isdisjoint(part.train.user_N)
    assert users | set(part.train.user_N) == set(whole.train.user_N)
    assert train_matrix(part.dataset)[sorted(users)].nnz == 0
    assert np.array_equal(part.test.target_N, whole.test.target_N)
    assert np.array_equal(part.test.history_NH, whole.test.history_NH)
    assert (part.train.targets_NT.shape[1], part.held_back.targets_NT.shape[1], part.test.targets_NT.shape[1]) == (3, 3, 2)
    again = read_source(replace(plain, held_back=0.3)).held_back
    assert again is not None
    assert set(again.user_N) == users
    other = read_source(replace(plain, held_back=0.3, seed=1)).held_back
    assert other is not None
    assert set(other.user_N) != users
    with pytest.raises(DataError, match=r"DataConfig\.held_back: 0\.3 has no effect on 'minionerec'"):
        DataConfig("minionerec", file, held_back=0.3)


def test_taken_prompts_keep_their_own_past() -> None:
    data = dataset([(user, user * 8 + place, place) for user in range(3) for place in range(8)])
    whole = prompts(data, "train", max_history=3)  # five a user
    taken = whole.take(np.array([13, 0, 6]))
    assert taken.target_N.tolist() == whole.target_N[[13, 0, 6]].tolist()
    assert taken.history_NH.tolist() == whole.history_NH[[13, 0, 6]].tolist()
    assert taken.user_N.tolist() == [2, 0, 1]
    assert taken.seen_offset.tolist() == [0, 4, 5, 7]
    past = [*data.sequence(2)[:4], *data.sequence(0)[:1], *data.sequence(1)[:2]]
    assert taken.seen_item.tolist() == past
    assert len(whole.take(slice(0, 0))) == 0


def test_prompts_refuse_an_unknown_split_and_an_empty_window() -> None:
    data = dataset([(0, 0, 0)])
    with pytest.raises(DataError, match="'valid' is not a split; choose one of train, validation, test"):
        prompts(data, "valid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="all must be 1 or more"):
        prompts(data, "test", max_history=0)


@given(ROWS)
def test_train_matrix_holds_the_train_split_alone(rows: list[tuple[int, int, int]]) -> None:
    data = dataset(rows)
    expected = np.zeros((data.n_users, data.n_items))
    for user in range(data.n_users):
        expected[user, data.sequence(user)[: data.train_end_U[user]]] = 1.0
    assert (train_matrix(data).toarray() == expected).all()


# The real files


def test_ml100k_is_as_described(ml100k_folder: Path) -> None:
    frame = read_atomic(ml100k_folder / "ml-100k.inter")
    assert (frame.height, frame["user"].n_unique(), frame["item"].n_unique()) == (100_000, 943, 1682)
    tied = frame.select((pl.len().over("user", "timestamp") > 1).mean()).item()
    assert tied == pytest.approx(0.758, abs=0.001)
    data = load_ml100k(ml100k_folder)
    assert (data.n_users, data.n_items, len(data.item_M)) == (943, 1349, 99_287)
    assert data.titles[data.items.index("1")] == "Toy Story"
    assert [len(prompts(data, split)) for split in ("train", "validation", "test")] == [78_412, 9_966, 9_966]
    assert train_matrix(data).nnz == 78_412 + 943  # a user's first item is no target
