"""Where each user's sequence is cut into train, then validation, then test.

Axis letters: M interactions, U users.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recast_sim.configio import Checked
from recast_train.data.data_error import DataError

SplitRule = Literal["ratio", "leave-one-out", "global-time", "sessions"]
HeldOut = Annotated[float, Field(gt=0, le=0.25)]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SplitConfig(Checked, error=DataError):
    """How sequences are split; whatever the rule, a user's train items lie before its validation items, and those before test.

    Attributes:
        rule: "ratio": the last shares of each user's sequence, at least one item each. "leave-one-out": the last item is test,
            the one before it validation. "global-time": two moments for all users cut the log, so nothing in train is later
            than anything that is tested. "sessions": the users (sessions) that begin last are test as a whole, those that
            begin before them validation. The first two leave train items of one user later than test items of another.
        validation, test: shares of the interactions, or of the sessions; without effect on leave-one-out.
    """

    rule: SplitRule = "ratio"
    validation: HeldOut = 0.1
    test: HeldOut = 0.1


def cut(length_U: Ints, time_M: NDArray[np.number] | None, config: SplitConfig) -> tuple[Ints, Ints]:
    """Ends (U,) of the train and of the validation items in each user's sequence.

    `length_U` are the lengths of the sequences, `time_M` the times of their items, one sequence after another in time order;
    None where the data has none.

    Raises:
        DataError: a rule that needs times without them, or one that leaves train or test empty.
    """
    if config.rule == "ratio":
        return _from_the_end(length_U, _rounded(length_U, config.validation), _rounded(length_U, config.test))
    if config.rule == "leave-one-out":
        return _from_the_end(length_U, np.ones_like(length_U), np.ones_like(length_U))
    if time_M is None:
        mend = "choose 'ratio' or 'leave-one-out', or give data with times"
        raise DataError(f"SplitConfig.rule: {config.rule!r} needs times, which this data does not have; {mend}")
    first_U = np.cumsum(length_U) - length_U
    if config.rule == "sessions":
        part_U = _by_moment(time_M[first_U], config)
        train_end_U, validation_end_U = np.where(part_U == 0, length_U, 0), np.where(part_U <= 1, length_U, 0)
    else:
        part_M = _by_moment(time_M, config)
        train_end_U, validation_end_U = (np.add.reduceat((part_M <= last).astype(np.int64), first_U) for last in (0, 1))
    if not train_end_U.any() or (validation_end_U == length_U).all():
        raise DataError(
            f"SplitConfig.rule: {config.rule!r} leaves train or test empty: the times hardly differ; choose 'ratio'"
        )
    return train_end_U, validation_end_U


def _from_the_end(length_U: Ints, validation_U: Ints, test_U: Ints) -> tuple[Ints, Ints]:
    """A user of one item is train alone, a user of two has no validation item."""
    end_U = length_U - np.where(length_U >= 2, test_U, 0)
    return end_U - np.where(length_U >= 3, validation_U, 0), end_U


def _rounded(length_U: Ints, share: float) -> Ints:
    """floor(n f + 1/2), half rounds up, and at least one."""
    return np.maximum(np.floor(length_U * share + 0.5).astype(np.int64), 1)


def _by_moment(time_N: NDArray[np.number], config: SplitConfig) -> Ints:
    """0 train, 1 validation, 2 test for each time (N,): equal times fall on one side, the later one."""
    ascending, n = np.sort(time_N), len(time_N)
    moments = [ascending[min(int((1 - share) * n), n - 1)] for share in (config.test + config.validation, config.test)]
    return (time_N >= moments[0]).astype(np.int64) + (time_N >= moments[1])
