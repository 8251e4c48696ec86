"""Claims 5 to 8, the systems claims, from a results file of `benchmarks/run.py`.

An entry speaks to a claim where its name begins with "claim N" (5 to 8): 5 and 6 as the factor ("x") that the time falls by, 7
and 8 in percent ("%"), as memory saved and as MFU gained.
"""

import re
from pathlib import Path
from typing import Any

from recast_analysis.claims.measurement import Row, judged_factor
from recast_analysis.claims.paper import ACTOR, MEMORY, MFU, STEP
from recast_analysis.measures.statistics import Interval
from recast_sim.bounded import read_json_file
from recast_sim.runs import RunError

_FACTORS = {  # the paper's words and figure, what would be no gain, and the unit
    5: (f"actor update {ACTOR:.2f}x", ACTOR, 1, "x"),
    6: (f"whole step {STEP:.2f}x", STEP, 1, "x"),
    7: (f"peak memory -{MEMORY} %", MEMORY, 0, "%"),
    8: (f"actor MFU +{MFU} %", MFU, 0, "%"),
}


def read_benchmarks(file: Path) -> dict[str, Any]:
    """A results file: a result for each benchmark. Raises RunError where it is not one."""
    try:
        found = read_json_file(file, RunError)
    except (OSError, RunError) as error:
        raise RunError(f"{file}: not readable ({error}); `python benchmarks/run.py --out {file}` writes it") from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) and "entries" in one for one in found.values()):
        raise RunError(f"{file}: holds no results of benchmarks; `python benchmarks/run.py --out {file}` writes them")
    return found


def benchmark_rows(file: Path) -> list[Row]:
    """A row an entry that speaks to a claim.

    Raises:
        RunError: not a results file, or an entry in another unit than its claim's.
    """
    rows = []
    for benchmark, result in read_benchmarks(file).items():
        for entry in result["entries"]:
            match = re.match(r"claim ([5-8])\b[:,]? *", entry["name"])
            if match is None:
                continue
            paper, figure, nothing, unit = _FACTORS[int(match[1])]
            if entry["unit"] != unit:
                raise RunError(f"{file}: entry {entry['name']!r} is in {entry['unit']!r}; claim {match[1]} needs {unit!r}")
            ours = Interval(entry["value"], entry["value"], entry["value"], 1)
            words = f"{benchmark}: {entry['name'][match.end() :]}; one machine, no interval"
            rows.append(judged_factor(int(match[1]), paper, ours, words, figure, nothing, fewest=1))
    return rows
