"""Time to a verdict: claim 2 on greedy Pass@1, on the same and on fresh prompts, from the command's start to its intervals.

    python benchmarks/verdict.py [--quick] [--json]

`recast-sim budget benchmarks/verdict.toml`: worlds of 85 / 13 / 2 % all-zero, single-hit and multi-hit groups, an under-trained
base, grpo and recast at rates tuned on two other worlds. The verdict counts where the 95 % interval of the change of greedy
Pass@1 against grpo reaches no further than 5 points to either side.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import Entry, Result, installed, main, spent

RECIPE = Path(__file__).with_suffix(".toml")
QUICK = (
    "--protocol.seeds 2 --protocol.tuning-seeds 1 --protocol.learning-rates 0.003 "
    "--setting.training.steps 5 --no-setting.calibrate-each"
)


def measure(quick: bool) -> Result:
    """Quick: a few steps in few worlds, without targets."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--out", Path(folder, "run"), "--json", *(QUICK.split() if quick else [])]
        found = spent(installed("recast-sim"), "budget", RECIPE, *options)
    table = verdicts(json.loads(found.printed))
    seconds, points = (None, None) if quick else (15 * 60.0, 5.0)
    widest = max(row["to either side, points"] for row in table)
    entries = [
        Entry("verdict on claim 2, same and fresh prompts, start to intervals", found.seconds, "s", seconds, at_least=False),
        Entry("verdict on claim 2: the wider interval, to either side", widest, "points", points, at_least=False),
    ]
    return Result(entries, table, {"processor seconds": round(found.processor, 1)})


def verdicts(summary: Any) -> list[dict[str, Any]]:
    """Change of greedy Pass@1 from grpo to recast in percent, a row a setting."""
    gains = summary["metrics"]["pass_at_1_greedy"]["recast"]["versus_grpo"]["by_setting"]
    return [
        {
            "setting": setting,
            "recast over grpo, %": 100 * gain["value"],
            "low": 100 * gain["low"],
            "high": 100 * gain["high"],
            "to either side, points": 50 * (gain["high"] - gain["low"]),
        }
        for setting, gain in gains.items()
    ]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
