"""A made-up log of interactions, for machines without a network: users who stay with a theme for a while, then move on."""

from pathlib import Path

import numpy as np
import polars as pl

from recast_sim.runs import atomic_file
from recast_train.data.data_error import DataError
from recast_train.data.readers.recbole import INTER_COLUMNS

_STAY, _THEME_SIZE, _TILT = 0.85, 20, 0.7  # chance to stay with a theme; items of one; Zipf exponent within it


def write_made_up(path: Path, users: int = 400, items: int = 400, length: int = 30, seed: int = 0) -> Path:
    """Write an atomic `.inter` file of `users` x `length` interactions and return its path.

    Items come in themes of 20, popular ones first. A user takes a new item of the current theme at each step, and goes to the
    next theme with chance 0.15, so that the last item says something of the next one. No user takes an item twice.

    Raises:
        DataError: no user, or fewer than 2 * length items, among which a user might find nothing new.
    """
    if users < 1 or length < 1 or items < 2 * length:
        raise DataError(
            f"items: {items} for {users} users of length {length}; give a user or more, and 2 * length items or more"
        )
    rng = np.random.default_rng(seed)
    walks = [_walk(rng, items, length) for _ in range(users)]
    rows = [(f"u{user}", f"i{item}", "1", str(place)) for user, walk in enumerate(walks) for place, item in enumerate(walk)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        pl.DataFrame(rows, schema=list(INTER_COLUMNS), orient="row").write_csv(temporary, separator="\t")
    return path


def _walk(rng: np.random.Generator, items: int, length: int) -> list[int]:
    """Items of one user in time."""
    themes = np.array_split(np.arange(items), max(1, items // _THEME_SIZE))
    theme, walk = int(rng.integers(len(themes))), list[int]()
    while len(walk) < length:
        left = np.setdiff1d(themes[theme], walk)
        if len(left) == 0 or rng.random() > _STAY:
            theme = (theme + 1) % len(themes)
            continue
        weight = 1 / (1.0 + left - themes[theme][0]) ** _TILT
        walk.append(int(rng.choice(left, p=weight / weight.sum())))
    return walk
