"""Which windows of the train sequences a step sees, and how they are laid out so that little of a pass is padding.

Axis letters: B windows, W items of a window, U users.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from recast_sim.runs import derive_seed
from recast_train.data import PAD, Dataset
from recast_train.data.interactions import left_packed

PARTS = 6  # passes of a step
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of every step, drawn epoch by epoch so that each train item is a target once an epoch, if none is left out.

    A sequence of at most `window` items is one window. A longer one is cut every `window` items, from another place each epoch.
    With probability `crop` a window loses a random number of its first items: a sub-sequence that begins later. Each of its
    items is left out with probability `item_dropout`, and the rest close up; a window that would lose all keeps all. What a
    step sees depends on the seed and the step alone.
    """

    dataset: Dataset
    window: int
    batch: int
    seed: int
    crop: float = 0.0
    item_dropout: float = 0.0

    @property
    def steps_an_epoch(self) -> int:
        """Steps over which an epoch's windows are spread, about `batch` each."""
        end_U = self.dataset.train_end_U
        return max(1, int(np.ceil(end_U / self.window).sum()) // self.batch)

    @property
    def targets(self) -> float:
        """Mean number of items, all of them targets, of a whole window."""
        end_U = self.dataset.train_end_U
        return float(end_U.sum() / np.ceil(end_U / self.window).sum())

    def step(self, step: int) -> Ints:
        """Windows (B, W) of item indices of a step, counted from 1; -1 fills the right."""
        epoch, part = divmod(step - 1, self.steps_an_epoch)
        rows = np.array_split(_epoch(self, epoch), self.steps_an_epoch)[part]
        place = rows[:, :1] + np.arange(self.window)
        inside = place < rows[:, 1:]
        items_M = self.dataset.item_M
        whole = np.where(inside, items_M[place.clip(max=len(items_M) - 1)], PAD)
        if not self.item_dropout:
            return whole
        rng = np.random.default_rng(derive_seed(self.seed, "item dropout", step))
        kept = inside & (rng.random(whole.shape) >= self.item_dropout)
        return left_packed(whole, kept | ~kept.any(1, keepdims=True))


@lru_cache(maxsize=2)
def _epoch(windows: Windows, epoch: int) -> Ints:
    """First and one-past-last place in `item_M` of each window (N, 2), shuffled."""
    data, size = windows.dataset, windows.window
    rng = np.random.default_rng(derive_seed(windows.seed, "windows", epoch))
    end_U = data.train_end_U
    phase_U = np.where(end_U > size, rng.integers(size, size=len(end_U)), 0)
    count_U = -(-(end_U + phase_U) // size)
    user = np.repeat(np.arange(len(end_U)), count_U)
    number = np.arange(len(user)) - np.repeat(count_U.cumsum() - count_U, count_U)
    first = (number * size - phase_U[user]).clip(min=0)
    last = np.minimum((number + 1) * size - phase_U[user], end_U[user])
    cropped = rng.random(len(user)) < windows.crop
    first = np.where(cropped, rng.integers(first, np.maximum(last - 1, first + 1)), first)  # two items are left, or one
    rows = np.stack([first, last], 1) + data.offset_U1[user][:, None]
    return rows[rng.permutation(len(rows))]


def layouts(window_BW: Ints) -> list[Ints]:
    """The windows in PARTS groups of similar length (fewer where there are fewer windows), each cut to its longest, with as
    little padding as so many groups allow.

    Together they are all of them, in another order. The number of groups depends on B alone, so that all ranks make as many
    passes.
    """
    length_B = (window_BW >= 0).sum(1)
    order_B = np.argsort(length_B, kind="stable")
    parts = np.split(order_B, _cuts(length_B[order_B], min(PARTS, len(order_B))))
    return [window_BW[part, : int(length_B[part[-1]])] for part in parts]


def _cuts(length_B: Ints, parts: int) -> list[int]:
    """Where to cut windows in the order of their lengths into so many parts, none of them empty, with the fewest positions.

    The best cuts lie where the length changes; places that would part the windows evenly make up for too few of those.
    """
    even = np.linspace(0, len(length_B), parts + 1).astype(np.int64)
    place_C = np.union1d(even, np.flatnonzero(np.diff(length_B)) + 1)
    longest_C = length_B[place_C - 1]  # of a part that ends there
    positions_CC = (place_C - place_C[:, None]) * longest_C
    positions_CC = np.where(np.triu(positions_CC, 1) > 0, positions_CC, np.inf)  # a part ends behind its start
    fewest_C, starts = np.where(place_C == 0, 0.0, np.inf), []
    for _ in range(parts):
        totals_CC = fewest_C[:, None] + positions_CC
        starts.append(totals_CC.argmin(0))
        fewest_C = totals_CC.min(0)
    ends = [len(place_C) - 1]
    for start_C in reversed(starts):
        ends.append(int(start_C[ends[-1]]))
    return place_C[ends[-2:0:-1]].tolist()
