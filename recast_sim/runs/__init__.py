"""Run folders: one layout for every run, simulated or real, readable without torch.

manifest.json            schema version, resolved config, seed, git state, versions, hardware, status, summary
steps.jsonl -> steps.parquet, evals.jsonl -> evals.parquet     while running -> after close
groups-*.parquet         one row a group, flushed at each checkpoint
checkpoints/step-*       written to a temporary name and renamed (`recast_sim.runs.model_state` holds the torch side)
"""

from recast_sim.runs.atomic import atomic_directory, atomic_file, write_json, write_text
from recast_sim.runs.reader import Run, RunError, find_runs, read_run
from recast_sim.runs.seeding import derive_seed
from recast_sim.runs.writer import RunWriter

__all__ = [
    "Run",
    "RunError",
    "RunWriter",
    "atomic_directory",
    "atomic_file",
    "derive_seed",
    "find_runs",
    "read_run",
    "write_json",
    "write_text",
]
