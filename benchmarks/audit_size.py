"""The audit of a large dump: seconds and peak memory of the whole command, with its figure.

    python benchmarks/audit_size.py [--quick] [--json]

Ten million rows of JSON lines in groups of 32, in verl's columns, written anew by tests/helpers/audit_dumps.py (1.3 GB, not
clocked); polars on 2 threads.
"""

import os
import sys
import tempfile
from pathlib import Path

from harness import Entry, Result, installed, main, spent

ROOT = Path(__file__).resolve().parents[1]
ROWS, QUICK_ROWS = 10_000_000, 320_000


def measure(quick: bool) -> Result:
    """Quick: fewer rows, and no targets, which are those of ten million."""
    rows = QUICK_ROWS if quick else ROWS
    os.environ["POLARS_MAX_THREADS"] = "2"
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder, "dump.jsonl")
        spent(sys.executable, ROOT / "tests" / "helpers" / "audit_dumps.py", dump, str(rows))
        size = dump.stat().st_size
        found = spent(installed("recast-report"), "audit", dump, "--out", Path(folder, "audit"))
    seconds, peak = (None, None) if quick else (15.0, 1e9)
    entries = [
        Entry(f"audit of {rows:,} rows", found.seconds, "s", seconds, at_least=False),
        Entry(f"audit of {rows:,} rows, peak memory", found.peak, "bytes", peak, at_least=False),
    ]
    table = [{"rows": rows, "bytes": size, "s": found.seconds, "s of CPU": found.processor, "peak, bytes": found.peak}]
    return Result(entries, table, {"polars threads": 2})


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
