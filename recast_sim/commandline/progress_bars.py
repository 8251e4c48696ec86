"""Progress on stderr: bars on a terminal, lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS = 30  # between two lines without a terminal


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr, with rate and time left: bars, or a line every so often without a terminal. Call the yielded function
    with a label, done and total.
    """
    if not Console(stderr=True).is_terminal:
        yield ProgressLines()
        return
    clocks = (_RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *clocks, console=Console(stderr=True)
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done)

        yield report


class ProgressLines:
    """A line for each label when it begins and when it is done, and one every `SECONDS` in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}  # a resumed label does not begin at 0
        self._told: dict[str, float] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        now = self._clock()
        begun, first = self._begun.setdefault(label, (now, done))
        if label in self._told and done < total and now - self._told[label] < SECONDS:
            return
        self._told[label] = now
        words = f"{label}: {done:,} of {total:,}"
        if done > first and now > begun:
            rate = (done - first) / (now - begun)
            words += f", {rate:.3g}/s" + (f", {timedelta(seconds=round((total - done) / rate))} left" if done < total else "")
        print(words, file=sys.stderr, flush=True)


class _RateColumn(ProgressColumn):
    """Steps a second, three digits; nothing before the second step."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.3g}/s", style="progress.data.speed")
