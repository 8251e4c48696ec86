"""What a user waits for before anything happens: the signal module's import, and the list of commands.

    python benchmarks/start_up.py [--quick] [--json]

Processor seconds, which a busy machine stretches less than those of the clock; processes take turns. The signal module
computes with torch, so its import is clocked behind that of torch. The lists of commands need no torch.
"""

import statistics
import sys
from collections.abc import Callable

from harness import Entry, Result, installed, main, spent

SIGNAL = "import time, torch; begun = time.process_time(); import recast_sim.signal; print(time.process_time() - begun)"
LISTS = ("recast-sim", "recast-report", "recast-train")


def measure(quick: bool) -> Result:
    """Medians of rounds; the first one, which reads the files, does not count."""
    ways: dict[str, Callable[[], float]] = {
        "import torch": lambda: spent(sys.executable, "-c", "import torch").processor,
        "import recast_sim.signal, behind torch": lambda: float(spent(sys.executable, "-c", SIGNAL).printed),
        **{f"{name} --help": lambda name=name: spent(installed(name), "--help").processor for name in LISTS},
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(2 if quick else 6)]
    seconds = {name: statistics.median(row[name] for row in rounds[1:]) for name in ways}
    targets = {"import recast_sim.signal, behind torch": 0.1, "recast-sim --help": 1.0}
    entries = [Entry(name, seconds[name], "s of CPU", target, at_least=False) for name, target in targets.items()]
    return Result(entries, [{"what": name, "s of CPU": value} for name, value in seconds.items()])


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
