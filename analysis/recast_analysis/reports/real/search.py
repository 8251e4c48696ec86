"""Report of a search for a supervised start (`recast-train search`) from its folder alone."""

from pathlib import Path

from recast_analysis.reports.report import Report, Table
from recast_sim.runs import RunError
from recast_sim.runs.table_files import read_table

_METRICS = ("hr@10", "ndcg@10", "hr@1")


def report(root: Path) -> Report:
    """The candidates, the best NDCG@10 on validation prompts first; those that failed last.

    Raises:
        RunError: the search is not finished, or its table is damaged.
    """
    file = root / "candidates.parquet"
    if not file.exists():
        raise RunError(f"{root}: not finished; go on with --resume")
    rows = read_table(file, RunError).to_dicts()
    done = sorted((row for row in rows if row["failed"] is None), key=lambda row: -row["ndcg@10"])
    failed = [row for row in rows if row["failed"] is not None]
    shown = [
        (
            row["candidate"],
            f"{row['hr@10']:.4f} +- {row['hr@10_error']:.4f}",
            *(f"{row[metric]:.4f}" for metric in _METRICS[1:]),
            f"{row['validation_nll']:.3f}",
            f"{row['best_step']:,} of {row['steps']:,}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['tokens'] / row['seconds']:,.0f}",
            f"{row['seconds'] / 60:.1f}",
        )
        for row in done
    ]
    header = ("", "hr@10", *_METRICS[1:], "NLL", "kept step", "M parameters", "tokens/s", "minutes")
    prompts = f"{done[0]['prompts']:,} " if done else ""
    note = f"{prompts}validation prompts, whole catalog, unfiltered; +- is one standard error over prompts. One seed."
    parts = [Table("candidates for a supervised start", header, shown, note=note)]
    return Report({"candidates": [*done, *failed]}, [*parts, *(f"{row['candidate']}: {row['failed']}" for row in failed)])
