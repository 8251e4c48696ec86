"""The made-up log is a valid atomic file, the same for a seed, and its order in time says something of the next item."""

from pathlib import Path

import polars as pl
import pytest

from recast_train.data import DataError, read_atomic, write_made_up


def test_it_reads_back_whole_without_an_item_twice(tmp_path: Path) -> None:
    log = read_atomic(write_made_up(tmp_path / "below" / "log.inter", users=50, items=100, length=40))
    assert log.height == 50 * 40
    assert not log.select("user", "item").is_duplicated().any()
    assert log.group_by("user").len()["len"].unique().to_list() == [40]
    assert log["item"].n_unique() <= 100


def test_a_seed_gives_one_file(tmp_path: Path) -> None:
    files = [write_made_up(tmp_path / str(n), users=5, items=60, length=20, seed=seed) for n, seed in enumerate((1, 1, 2))]
    texts = [file.read_text() for file in files]
    assert texts[0] == texts[1] != texts[2]


def test_the_next_item_is_mostly_of_the_same_theme(tmp_path: Path) -> None:
    log = read_atomic(write_made_up(tmp_path / "log.inter")).sort("user", "timestamp")
    theme = log.select("user", theme=pl.col("item").str.slice(1).cast(pl.Int64) // 20)
    stays = theme.select((pl.col("theme") == pl.col("theme").shift(1).over("user")).mean()).item()
    assert 0.75 < stays < 0.9  # 20 themes: by chance it would be 0.05


@pytest.mark.parametrize("sizes", [{"users": 0}, {"length": 0}, {"items": 59, "length": 30}])
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="items: "):
        write_made_up(tmp_path / "log.inter", **sizes)
    assert not (tmp_path / "log.inter").exists()
