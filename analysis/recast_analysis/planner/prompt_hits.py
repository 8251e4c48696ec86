"""Hits of each prompt of a log: a dump that the audit reads, or a run folder of ours. Axis letter: P prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from recast_analysis.audit.reading.dump_groups import read_groups
from recast_analysis.planner.plan_error import PlanError
from recast_sim.runs.reader import fits_its_kind, read_run

Window = Literal["all", "first", "last"]
_QUARTER = 4  # of the steps are the first or the last window
_MOVED = 0.01  # p-value from which on hit rates are said to have moved


@dataclass(frozen=True)
class PromptHits:
    """What a log says of each prompt; the groups of a prompt that stands in several steps are added up.

    Attributes:
        id_P: what tells prompts apart, the same in every log of the same prompts.
        hits_P, rows_P: hits and rollouts, int64.
        group_size: rows of a group that most groups have.
        prompt_length, response_length: means over rollouts, in `unit`; None where the log has none.
        has_target: whether rows name a target; None where the log does not say.
        source: what was read, in words.
        notes: what a reader must know.
    """

    id_P: NDArray[Any]
    hits_P: NDArray[np.int64]
    rows_P: NDArray[np.int64]
    group_size: int
    prompt_length: float | None
    response_length: float | None
    unit: str | None
    has_target: bool | None
    source: str
    notes: list[str]

    @property
    def prompts(self) -> int:
        return len(self.hits_P)

    @property
    def rollouts(self) -> int:
        return int(self.rows_P.sum())


def read_prompt_hits(
    paths: Sequence[Path],
    hit_above: float,
    columns: Sequence[str] = (),
    window: Window = "all",
    report: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> PromptHits:
    """The prompts of one log.

    Args:
        paths: files or folders of one dump as `recast-report audit` takes them, or one run folder with groups of ours.
        hit_above: rewards above it are hits (a run folder of ours has counted them).
        columns: `role=column` where a dump's own names do not say it.
        window: all steps, or the first or the last quarter of them.
        report: told of the progress, in files.

    Raises:
        PlanError: a run folder without groups.
        AuditError, RunError: what cannot be read.
    """
    if len(paths) == 1 and (paths[0] / "manifest.json").is_file():
        return _prompts(_own_groups(paths[0]), window, f"run folder {paths[0].name}", None, None)
    dump = read_groups(paths, hit_above, columns, None, report)
    table, name = dump.table, "source" if "source" in dump.table.columns else "prompt"
    reward = " + ".join(dump.rules.layout.columns["reward"])
    words = f"{dump.form}, a hit is {reward} > {hit_above:g}"
    found = _prompts(table.with_columns(pl.col(name).alias("prompt")), window, words, dump.rules.unit, dump.has_target)
    if dump.rules.sids is not None and (table["distinct"] == table["rows"]).all() and table["rows"].max() != 1:
        found.notes.append(
            "no response comes twice in any group, as in beam search or sampling without replacement: what is said of "
            "independent rollouts does not hold for such groups"
        )
    return found


def _own_groups(path: Path) -> pl.DataFrame:
    groups = read_run(path).groups
    if groups.is_empty():
        raise PlanError(f"{path}: no groups-*.parquet; give the folder of one training, such as RUN/rl/grpo")
    with fits_its_kind(path):
        return groups.rename({"valid": "rows"}).select("step", "prompt", "hits", "rows").filter(pl.col("rows") > 0)


def _prompts(table: pl.DataFrame, window: Window, words: str, unit: str | None, has_target: bool | None) -> PromptHits:
    steps = table["step"].unique().sort()
    part = -(-len(steps) // _QUARTER)
    kept = {"all": steps, "first": steps[:part], "last": steps[-part:]}[window]
    notes = _drift(table, steps) if window == "all" else []
    table = table.filter(pl.col("step").is_in(kept.implode()))
    of_prompt = table.group_by("prompt", maintain_order=True).agg(pl.col("hits", "rows").sum())
    sizes = table["rows"].value_counts().sort("count", "rows", descending=[True, False])["rows"]
    rows = int(of_prompt["rows"].sum())
    lengths = [
        float(table[name].to_numpy().sum()) / rows if name in table.columns else None
        for name in ("prompt_length", "response_length")
    ]
    counts = f"{rows:,} rollouts of {of_prompt.height:,} prompts in {table.height:,} groups, most of {sizes[0]}"
    where = "" if window == "all" else f", the {window} {len(kept)} of {len(steps)} steps"
    return PromptHits(
        id_P=of_prompt["prompt"].to_numpy(),
        hits_P=of_prompt["hits"].to_numpy().astype(np.int64),
        rows_P=of_prompt["rows"].to_numpy().astype(np.int64),
        group_size=int(sizes[0]),
        prompt_length=lengths[0],
        response_length=lengths[1],
        unit=unit,
        has_target=has_target,
        source=f"{words}{where}: {counts}",
        notes=notes,
    )


def _drift(table: pl.DataFrame, steps: pl.Series) -> list[str]:
    """A warning where the groups' hit rates differ between the two halves of the steps (Welch's test over groups)."""
    if len(steps) < _QUARTER:
        return []
    rate, late = (table["hits"] / table["rows"]).to_numpy(), (table["step"] >= steps[len(steps) // 2]).to_numpy()
    halves = rate[~late], rate[late]
    if min(map(len, halves)) < 2 or max(half.std() for half in halves) == 0:
        return []
    p = float(scipy.stats.ttest_ind(*halves, equal_var=False).pvalue)
    if not p < _MOVED:
        return []
    return [
        f"hit rates moved from {halves[0].mean():.4g} in the first half of the steps to {halves[1].mean():.4g} in the second "
        f"(p = {p:.2g}): --window first plans a run from the same start, --window last one that goes on"
    ]
